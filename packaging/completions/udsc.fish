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
complete -c udsc -n "__fish_udsc_needs_command" -f -a "apply" -d 'Have systemd\'s sockets and the daemon follow udsd.toml'
complete -c udsc -n "__fish_udsc_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand connect" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand connect" -l user -d 'The user\'s daemon; without either option the user\'s if it runs, else the system\'s'
complete -c udsc -n "__fish_udsc_using_subcommand connect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand send" -l wait -d 'Wait for N messages and print each on a line (of a stream under framing none: N reads)' -r
complete -c udsc -n "__fish_udsc_using_subcommand send" -l timeout -d 'Fail once it took longer than T to send and to get the answers' -r
complete -c udsc -n "__fish_udsc_using_subcommand send" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand send" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand send" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand send" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand send" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand send" -l user -d 'The user\'s daemon; without either option the user\'s if it runs, else the system\'s'
complete -c udsc -n "__fish_udsc_using_subcommand send" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l count -d 'End after N messages; fewer are a failure' -r
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand listen" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand listen" -l user -d 'The user\'s daemon; without either option the user\'s if it runs, else the system\'s'
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
complete -c udsc -n "__fish_udsc_using_subcommand ping" -l user -d 'The user\'s daemon; without either option the user\'s if it runs, else the system\'s'
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
complete -c udsc -n "__fish_udsc_using_subcommand bench" -l user -d 'The user\'s daemon; without either option the user\'s if it runs, else the system\'s'
complete -c udsc -n "__fish_udsc_using_subcommand bench" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l config -d 'The daemon that serves FILE' -r -F
complete -c udsc -n "__fish_udsc_using_subcommand apply" -s s -l socket -d 'A socket\'s NAME in udsd.toml, a path (with a \'/\') or "@name" (abstract); without it the first of the file' -r
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l type -d 'Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and datagram sockets one message is one packet' -r -f -a "stream\t''
seqpacket\t''
datagram\t''"
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l framing -d 'none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml says [of a path: lines]; packets need none' -r
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l system -d 'The system\'s daemon, not the user\'s'
complete -c udsc -n "__fish_udsc_using_subcommand apply" -l user -d 'The user\'s daemon; without either option the user\'s if it runs, else the system\'s'
complete -c udsc -n "__fish_udsc_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench apply help" -f -a "connect" -d 'Standard input to messages, incoming messages to standard output, until both ends are done'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench apply help" -f -a "send" -d 'Send each argument as one message, then wait for answers'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench apply help" -f -a "listen" -d 'Print incoming messages, each on a line (of a stream under framing none: the bytes), until the server closes'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench apply help" -f -a "ping" -d 'Measure round trips over an echo socket; fails if one is lost'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench apply help" -f -a "bench" -d 'Measure how many messages a socket carries and how long they take, with every byte checked'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench apply help" -f -a "apply" -d 'Have systemd\'s sockets and the daemon follow udsd.toml'
complete -c udsc -n "__fish_udsc_using_subcommand help; and not __fish_seen_subcommand_from connect send listen ping bench apply help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
