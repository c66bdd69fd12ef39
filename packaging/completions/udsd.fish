complete -c udsd -l config -d 'The config file, and FILE.d/*.toml [default: /etc/udsd/udsd.toml, by a user ~/.config/udsd/udsd.toml, else the built-in one; and their drop-ins]' -r -F
complete -c udsd -l socket -d 'Serve one socket at PATH in place of the config file\'s ("@name": abstract)' -r
complete -c udsd -l type -d 'Type of the one socket: stream, seqpacket, datagram' -r
complete -c udsd -l service -d 'Service of the one socket: echo, relay, collect' -r
complete -c udsd -l framing -d 'Framing of the one socket: none, lines, nul, length-prefixed, fixed:N, cstring:N, syslog' -r
complete -c udsd -l check -d 'Print the effective configuration, or what is wrong with it (exit code 78), and end'
complete -c udsd -l json -d 'Print the faults alone, as a JSON list of objects'
complete -c udsd -l text -d 'Judge the text alone: on this machine nothing of it has to be there'
complete -c udsd -s h -l help -d 'Print help'
complete -c udsd -s V -l version -d 'Print version'
