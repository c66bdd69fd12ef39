# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_udsc_global_optspecs
    string join \n system user config= s/socket= type= framing= h/help V/version
end

function __fish_udsc_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_udsc_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_udsc_using_subcommand
    set -l cmd (__fish_udsc_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c udsc -n "__fish_udsc_needs_command" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_needs_command" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_needs_command" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_needs_command" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_needs_command" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_needs_command" -l user -d 'The user\'s daemon; without either option the user\'s if it runs, else the system\'s'
complete -c udsc -n "__fish_udsc_needs_command" -s h -l help -d 'Print help'
complete -c udsc -n "__fish_udsc_needs_command" -s V -l version -d 'Print version'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "connect" -d 'Standard input to messages, incoming messages to standard output, until both ends are done'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "send" -d 'Send each argument as one message, then wait for answers'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "listen" -d 'Print incoming messages, each on a line (of a stream under framing none: the bytes), until the server closes'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "ping" -d 'Measure round trips over an echo socket; fails if one is lost'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "bench" -d 'Measure how many messages a socket carries and how long they take, with every byte checked'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "status" -d 'How the daemon and its sockets are: what was refused, dropped and closed and why, which record is behind'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "clients" -d 'Who is connected: what they send and get, what waits for them, whom they hold up'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "disconnect" -d 'End a client, by its number in `udsc clients` and in the log; as root or udsd\'s own user'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "reload" -d 'Have the daemon read its file again; what is wrong with it is printed, and the daemon serves as before'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "metrics" -d 'All counts of the daemon, as text for Prometheus'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "tap" -d 'Print the messages that pass on a socket, a line each: when, from whom, to how many, what'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "read" -d 'Read the record of a socket, across its segments, as journalctl reads the journal'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "top" -d 'Watch who is connected and how much passes, refreshed each second'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "apply" -d 'Have systemd\'s sockets and the daemon follow udsd.toml'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand connect" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand connect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand send" -l wait -d 'Wait for N messages and print each on a line (of a stream under framing none: N reads)' -r
complete -c udsc -n "__fish_udsc_using_subcommand send" -l timeout -d 'Fail once it took longer than T to send and to get the answers' -r
complete -c udsc -n "__fish_udsc_using_subcommand send" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand send" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand send" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand send" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand send" -l json -d 'Each message that comes as one object a line'
complete -c udsc -n "__fish_udsc_using_subcommand send" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand send" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l count -d 'End after N messages; fewer are a failure' -r
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand listen" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l json -d 'Each message as one object a line'
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand listen" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand ping" -s c -l count -d 'End after N; without it, Ctrl-C ends and prints the summary' -r
complete -c udsc -n "__fish_udsc_using_subcommand ping" -s i -l interval -d 'From one to the next' -r
complete -c udsc -n "__fish_udsc_using_subcommand ping" -s W -l timeout -d 'How long an answer may take before it counts as lost' -r
complete -c udsc -n "__fish_udsc_using_subcommand ping" -l size -d 'Bytes of each message, as 4KiB [default: 64, or what the framing fixes]' -r
complete -c udsc -n "__fish_udsc_using_subcommand ping" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand ping" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand ping" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand ping" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand ping" -l json -d 'Print each line as a JSON object, times in nanoseconds'
complete -c udsc -n "__fish_udsc_using_subcommand ping" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand ping" -s h -l help -d 'Print help'
complete -c udsc -n "__fish_udsc_using_subcommand bench" -s c -l clients -d 'Connections at once; on a relay one of them sends and the others receive' -r
complete -c udsc -n "__fish_udsc_using_subcommand bench" -l size -d 'Bytes of each message, as 4KiB, at least 16 [default: 64, or what the framing fixes]' -r
complete -c udsc -n "__fish_udsc_using_subcommand bench" -s P -l pipeline -d 'Messages that each sender has under way at most; of collect: messages in one write' -r
complete -c udsc -n "__fish_udsc_using_subcommand bench" -s d -l duration -d 'How long to send; Ctrl-C ends earlier' -r
complete -c udsc -n "__fish_udsc_using_subcommand bench" -l service -d 'echo, relay or collect, instead of what udsd.toml says; of a path that no file has, one message is sent to see whether it is an echo' -r -f -a "echo\t''
relay\t''
collect\t''"
complete -c udsc -n "__fish_udsc_using_subcommand bench" -s W -l timeout -d 'When a message that did not come is lost [default: 5s, of datagrams 1s]' -r
complete -c udsc -n "__fish_udsc_using_subcommand bench" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand bench" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand bench" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand bench" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand bench" -l json -d 'Print one JSON object, times in nanoseconds'
complete -c udsc -n "__fish_udsc_using_subcommand bench" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand bench" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand status" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand status" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand status" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand status" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand status" -l json -d 'One object a line: the daemon, then each socket, with all that the daemon says'
complete -c udsc -n "__fish_udsc_using_subcommand status" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand clients" -l user -d 'Only those of this user, by name or number' -r
complete -c udsc -n "__fish_udsc_using_subcommand clients" -l unit -d 'Only those of this systemd unit' -r
complete -c udsc -n "__fish_udsc_using_subcommand clients" -l sort -d 'Amounts with the largest first, all else with the smallest' -r -f -a "id\t''
user\t''
pid\t''
socket\t''
since\t'Since when they are connected, the newest first'
idle\t''
queue\t'Bytes that wait for them to read'
held\t'Bytes held for them in all'
messages-in\t''
bytes-in\t''
messages-out\t''
bytes-out\t''
dropped\t''"
complete -c udsc -n "__fish_udsc_using_subcommand clients" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand clients" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand clients" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand clients" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand clients" -l json -d 'One object a line, with all that the daemon says'
complete -c udsc -n "__fish_udsc_using_subcommand clients" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand clients" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand disconnect" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand disconnect" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand disconnect" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand disconnect" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand disconnect" -l json -d 'Its number as an object, once it has been ended'
complete -c udsc -n "__fish_udsc_using_subcommand disconnect" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand disconnect" -s h -l help -d 'Print help'
complete -c udsc -n "__fish_udsc_using_subcommand reload" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand reload" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand reload" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand reload" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand reload" -l json -d 'What is wrong with the file on standard output, one object a line'
complete -c udsc -n "__fish_udsc_using_subcommand reload" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand metrics" -l output -d 'Replace this file by them in one step, readable by all; by udsd_up 0 where udsd does not answer' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand metrics" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand metrics" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand metrics" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand metrics" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand metrics" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c udsc -n "__fish_udsc_using_subcommand tap" -l count -d 'End after N messages' -r
complete -c udsc -n "__fish_udsc_using_subcommand tap" -l user -d 'Only what this user sends, by name or number' -r
complete -c udsc -n "__fish_udsc_using_subcommand tap" -l unit -d 'Only what clients of this systemd unit send' -r
complete -c udsc -n "__fish_udsc_using_subcommand tap" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand tap" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand tap" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand tap" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand tap" -l json -d 'One object a line; the first has no message, and says that the tap is open'
complete -c udsc -n "__fish_udsc_using_subcommand tap" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand tap" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand read" -l from -d 'Begin with the message of this number' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -s S -l since -d 'Begin with the first message at this time or later: "2026-11-22 06:20", "06:20", today, yesterday, "10min ago", -1h, 2026-11-22T06:20:31Z' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -s n -l last -d 'Begin with the last N messages of those that are asked for' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -s U -l until -d 'End with the last message at this time or before' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -l user -d 'Only what this user sent, by name or number' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -s u -l unit -d 'Only what this systemd unit sent' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -l pid -d 'Only what this process sent' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -s g -l grep -d 'Only messages that contain TEXT' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand read" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand read" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand read" -s f -l follow -d 'Go on with what is written from now on'
complete -c udsc -n "__fish_udsc_using_subcommand read" -l json -d 'The lines of the record as they are'
complete -c udsc -n "__fish_udsc_using_subcommand read" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand read" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand top" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand top" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand top" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand top" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand top" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand apply" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l json -d 'What became of each as one object a line'
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "connect" -d 'Standard input to messages, incoming messages to standard output, until both ends are done'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "send" -d 'Send each argument as one message, then wait for answers'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "listen" -d 'Print incoming messages, each on a line (of a stream under framing none: the bytes), until the server closes'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "ping" -d 'Measure round trips over an echo socket; fails if one is lost'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "bench" -d 'Measure how many messages a socket carries and how long they take, with every byte checked'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "status" -d 'How the daemon and its sockets are: what was refused, dropped and closed and why, which record is behind'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "clients" -d 'Who is connected: what they send and get, what waits for them, whom they hold up'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "disconnect" -d 'End a client, by its number in `udsc clients` and in the log; as root or udsd\'s own user'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "reload" -d 'Have the daemon read its file again; what is wrong with it is printed, and the daemon serves as before'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "metrics" -d 'All counts of the daemon, as text for Prometheus'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "tap" -d 'Print the messages that pass on a socket, a line each: when, from whom, to how many, what'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "read" -d 'Read the record of a socket, across its segments, as journalctl reads the journal'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "top" -d 'Watch who is connected and how much passes, refreshed each second'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "apply" -d 'Have systemd\'s sockets and the daemon follow udsd.toml'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench status clients disconnect reload metrics tap read top apply help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
