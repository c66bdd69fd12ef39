//! Wrong files, each with the fault that must be reported for it. No two get the same message.

/// All of them.
pub(crate) fn files() -> impl Iterator<Item = Wrong> {
    let tables = [syntax_and_tables(), values(), contradictions()];
    tables.into_iter().flatten()
}

/// A wrong file and what is said about it.
pub(crate) struct Wrong {
    pub(crate) text: String,
    /// 0 where no line is at fault.
    pub(crate) line: usize,
    pub(crate) key: &'static str,
    pub(crate) words: &'static [&'static str],
    /// "LINE: KEY" of further faults that follow from it.
    pub(crate) others: &'static [&'static str],
}

impl Wrong {
    fn on(self, line: usize) -> Self {
        Self { line, ..self }
    }

    fn with(self, others: &'static [&'static str]) -> Self {
        Self { others, ..self }
    }

    /// What its report begins with, behind the name of the file.
    pub(crate) fn place(&self) -> String {
        let line = if self.line > 0 {
            format!(":{}", self.line)
        } else {
            String::new()
        };
        let key = if self.key.is_empty() {
            String::new()
        } else {
            format!(" {}:", self.key)
        };
        format!("{line}:{key} ")
    }
}

fn wrong(text: &str, line: usize, key: &'static str, words: &'static [&'static str]) -> Wrong {
    Wrong {
        text: text.into(),
        line,
        key,
        words,
        others: &[],
    }
}

/// A fault on the third line, in a table [socket.a] that is right but for these lines.
fn socket(lines: &str, key: &'static str, words: &'static [&'static str]) -> Wrong {
    wrong(
        &format!("[socket.a]\npath = \"/run/a.sock\"\n{lines}\n"),
        3,
        key,
        words,
    )
}

/// A fault in the record of such a socket, on the line after its header.
fn record(lines: &str, key: &'static str, words: &'static [&'static str]) -> Wrong {
    let socket = "[socket.a]\npath = \"/run/a.sock\"\nservice = \"collect\"\nframing = \"lines\"";
    wrong(
        &format!("{socket}\n[socket.a.record]\n{lines}\n"),
        6,
        key,
        words,
    )
}

/// A fault of a file's second line, before a socket that is right.
fn daemon(lines: &str, key: &'static str, words: &'static [&'static str]) -> Wrong {
    wrong(
        &format!("{lines}\n[socket.a]\npath = \"/run/a.sock\"\n"),
        2,
        key,
        words,
    )
}

fn syntax_and_tables() -> Vec<Wrong> {
    let many: String = (0..1025)
        .map(|i| format!("[socket.s{i}]\npath = \"/s{i}\"\n"))
        .collect();
    vec![
        wrong(
            "[socket.a\npath = 1\n",
            1,
            "",
            &["not TOML", "unclosed table", "close it"],
        ),
        socket(
            "user = udsd",
            "",
            &["not TOML", "write text in double quotes"],
        ),
        socket(
            "mode = 0660",
            "",
            &["leading zero", "a mode as \"0660\""],
        ),
        socket(
            "path: \"x\"",
            "",
            &["not TOML", "write KEY = VALUE"],
        ),
        socket("path \"x\"", "", &["not TOML", "write KEY = VALUE"]),
        socket(
            "user = \"x",
            "",
            &["not TOML", "end it with the quote"],
        ),
        socket(
            "user = \"\\d\"",
            "",
            &["not TOML", "write a backslash as two"],
        ),
        socket(
            "stamp = True",
            "",
            &["not TOML", "write true or false"],
        ),
        socket(
            "user = \"a\" group = \"b\"",
            "",
            &["not TOML", "write KEY = VALUE, one on a line"],
        ),
        socket(
            "user = \"a\"\nuser = \"b\"",
            "socket.a.user",
            &["given twice, first on line 3"],
        )
        .on(4),
        socket(
            "\nuser = \"a\"\n\"us\\u0065r\" = \"b\"",
            "socket.a.user",
            &["given twice, first on line 4"],
        )
        .on(5),
        wrong(
            "[socket.a]\npath = \"/a\"\n[socket.a]\npath = \"/b\"\n",
            3,
            "socket.a",
            &["given twice, first on line 1: keep one"],
        ),
        wrong(
            "[socket.a]\npath = \"/a\"\n[socket]\na.mode = \"0600\"\n",
            4,
            "socket.a",
            &["has a header of its own on line 1: write its keys below that"],
        ),
        wrong(
            "[socket.a]\npath = \"/a\"\n[socket.b]\npath = \"/b\"\nrecord = { keep = 8, keep = 8 }\n",
            5,
            "socket.b.record.keep",
            &["given twice, first on line 5"],
        )
        .with(&["5: socket.b.record"]),
        wrong(
            "[socket]\npath = \"/a\"\n",
            2,
            "socket.path",
            &["a socket's keys stand in [socket.NAME]"],
        ),
        wrong("", 0, "socket", &["at least one table [socket.NAME]"]),
        wrong(&many, 1, "socket", &["1025 sockets", "at most 1024"]),
        wrong("[socket]\n", 1, "socket", &["is empty"]),
        wrong(
            "socket = 3\n",
            1,
            "socket",
            &["an integer", "write [socket.NAME]"],
        ),
        wrong(
            "[[socket.a]]\npath = \"/a\"\n",
            1,
            "socket.a",
            &["an array", "write [socket.a]"],
        ),
        daemon(
            "\ndaemon = true",
            "daemon",
            &["a boolean", "write [daemon]"],
        ),
        daemon("\n[deamon]\n", "deamon", &["did you mean daemon?"]),
        daemon(
            "\nversion = 1",
            "version",
            &["not known here", "\"daemon\", \"limits\" or \"socket\""],
        ),
        daemon(
            "\npath = \"/run/a.sock\"",
            "path",
            &["wrong table", "[socket.NAME]"],
        ),
        socket(
            "message_size = 1",
            "socket.a.message_size",
            &["did you mean message-size?"],
        ),
        socket(
            "rotate-size = \"1MiB\"",
            "socket.a.rotate-size",
            &["[socket.NAME.record]"],
        ),
        socket(
            "tls = true",
            "socket.a.tls",
            &["not known here", "\"path\"", "\"idle-timeout\""],
        ),
        record(
            "compress = true",
            "socket.a.record.compress",
            &["\"rotate-age\" or \"keep\""],
        ),
        wrong(
            "[socket.\"a b\"]\npath = \"/run/a.sock\"\n",
            1,
            "socket.\"a b\"",
            &["no name", "1 to 64"],
        ),
        wrong(
            "[socket.a]\nmode = \"0600\"\n",
            1,
            "socket.a.path",
            &["missing", "path = \"%t/udsd.sock\""],
        ),
    ]
}

fn values() -> Vec<Wrong> {
    vec![
        daemon(
            "[daemon]\nlog = \"inof\"",
            "daemon.log",
            &["\"inof\"", "debug", "MODULE=LEVEL"],
        ),
        daemon(
            "[daemon]\nlog = 3",
            "daemon.log",
            &["an integer", "must be a string, as \"info\""],
        ),
        daemon(
            "[daemon]\ncontrol = \"@udsd\"",
            "daemon.control",
            &["cannot be abstract"],
        ),
        daemon(
            "[daemon]\ncontrol = \"control.sock\"",
            "daemon.control",
            &["not absolute", "%t, %S or %L"],
        ),
        daemon(
            "[daemon]\ndrain-timeout = 5",
            "daemon.drain-timeout",
            &["lacks its unit", "\"5s\""],
        ),
        daemon(
            "[daemon]\ndrain-timeout = \"10\"",
            "daemon.drain-timeout",
            &["\"10\" lacks its unit"],
        ),
        daemon(
            "[daemon]\ndrain-timeout = \"never\"",
            "daemon.drain-timeout",
            &["cannot be \"never\""],
        ),
        daemon(
            "[daemon]\ndrain-timeout = \"4000days\"",
            "daemon.drain-timeout",
            &["from 0s to 87600h"],
        ),
        daemon(
            "[daemon]\ndrain-timeout = \"18446744073709551615s 1000ms\"",
            "daemon.drain-timeout",
            &["out of range"],
        ),
        daemon(
            "[daemon]\nexit-on-idle = \"999ms\"",
            "daemon.exit-on-idle",
            &["from 1s", "or \"never\""],
        ),
        daemon(
            "[daemon]\nexit-on-idle = false",
            "daemon.exit-on-idle",
            &["a boolean", "span of time"],
        ),
        daemon(
            "[limits]\nclients = -1",
            "limits.clients",
            &["-1 is out of range", "from 0"],
        ),
        daemon(
            "[limits]\nclients = \"many\"",
            "limits.clients",
            &["a string", "a whole number"],
        ),
        daemon(
            "[limits]\nqueue-total = \"2TiB\"",
            "limits.queue-total",
            &["no size", "GiB"],
        ),
        daemon(
            "[limits]\nqueue-per-user = \"99999999999GiB\"",
            "limits.queue-per-user",
            &["out of range", "from 1B to 1024GiB"],
        ),
        wrong(
            "[limits]\nqueue-per-user = \"64KiB\"\n\n[socket.a]\npath = \"/run/a\"\nservice = \"relay\"\nframing = \"lines\"\nstamp = true\n",
            2,
            "limits.queue-per-user",
            &[
                "queue-per-user = \"64KiB\" cannot hold one message of socket.a.message-size = \"64KiB\", stamped",
                "\"1025KiB\" or more",
            ],
        ),
        wrong(
            "[limits]\nqueue-total = \"1KiB\"\n\n[socket.a]\npath = \"/run/a\"\nframing = \"lines\"\n",
            2,
            "limits.queue-total",
            &["cannot hold one message", "\"131076B\" or more"],
        ),
        wrong(
            "[socket.a]\npath = \"\"\n",
            2,
            "socket.a.path",
            &["is empty", "@name"],
        ),
        wrong(
            "[socket.a]\npath = \"@\"\n",
            2,
            "socket.a.path",
            &["alone is no name"],
        ),
        wrong(
            "[socket.a]\npath = \"a.sock\"\n",
            2,
            "socket.a.path",
            &["\"a.sock\" is not absolute"],
        ),
        wrong(
            "[socket.a]\npath = \"/run/../a\"\n",
            2,
            "socket.a.path",
            &["contains \"..\""],
        ),
        wrong(
            "[socket.a]\npath = \"/run/\"\n",
            2,
            "socket.a.path",
            &["names a folder"],
        ),
        wrong(
            "[socket.a]\npath = \"%h/a\"\n",
            2,
            "socket.a.path",
            &["contains %h", "%t, %S, %L"],
        ),
        wrong(
            "[socket.a]\npath = \"/50%\"\n",
            2,
            "socket.a.path",
            &["%% is a plain %"],
        ),
        wrong(
            "[socket.a]\npath = \"/a\\nb\"\n",
            2,
            "socket.a.path",
            &["control character"],
        ),
        wrong(
            &format!("[socket.a]\npath = \"%t/{}\"\n", "x".repeat(103)),
            2,
            "socket.a.path",
            &["108 bytes", "at most 107"],
        ),
        daemon(
            &format!("[daemon]\ncontrol = \"/{}\"", "0".repeat(120)),
            "daemon.control",
            &["is 121 bytes long, and a socket's path at most 107: write a shorter one"],
        ),
        socket(
            "type = \"packet\"",
            "socket.a.type",
            &["\"seqpacket\" or \"datagram\""],
        ),
        socket(
            "mode = 660",
            "socket.a.mode",
            &["660 is an integer", "octal string", "\"0660\""],
        ),
        socket(
            "mode = \"rw-rw----\"",
            "socket.a.mode",
            &["no mode", "octal digits"],
        ),
        socket(
            "mode = \"0\"",
            "socket.a.mode",
            &["\"0000\" lets nobody connect", "\"0600\""],
        ),
        socket(
            "mode = \"0066\"",
            "socket.a.mode",
            &["the owner less than others", "\"0666\""],
        ),
        socket(
            "mode = \"0460\"",
            "socket.a.mode",
            &["\"0460\" gives the owner less", "\"0660\""],
        ),
        socket("mode = \"4755\"", "socket.a.mode", &["over \"0777\""]),
        socket(
            "user = [\"a\"]",
            "socket.a.user",
            &["an array", "a name or a number"],
        ),
        socket(
            "group = 4294967295",
            "socket.a.group",
            &["from 0 to 4294967294"],
        ),
        socket(
            "group = \"www:data\"",
            "socket.a.group",
            &["\"www:data\" cannot be a name"],
        ),
        socket("backlog = 0", "socket.a.backlog", &["from 1 to 65535"]),
        socket(
            "allow-users = \"root\"",
            "socket.a.allow-users",
            &["array of names"],
        ),
        socket(
            "allow-users = [\"\"]",
            "socket.a.allow-users",
            &["names nobody"],
        ),
        socket(
            "allow-groups = [true]",
            "socket.a.allow-groups",
            &["a boolean"],
        ),
        socket(
            "service = \"proxy\"",
            "socket.a.service",
            &["\"echo\", \"relay\" or \"collect\""],
        ),
        socket(
            "framing = \"json\"",
            "socket.a.framing",
            &["no framing", "length-prefixed"],
        ),
        socket(
            "framing = \"fixed\"",
            "socket.a.framing",
            &["lacks its size", "fixed:N"],
        ),
        socket(
            "framing = \"fixed:0\"",
            "socket.a.framing",
            &["\"fixed:0\" is out of range", "from 1 to message-size"],
        ),
        socket(
            "framing = \"fixed:-1\"",
            "socket.a.framing",
            &["\"fixed:-1\" is out of range"],
        ),
        socket(
            "framing = \"cstring:99999999999999999999\"",
            "socket.a.framing",
            &["is out of range", "cstring:N"],
        ),
        socket(
            "message-size = \"2GiB\"",
            "socket.a.message-size",
            &["from 1B to 1GiB"],
        ),
        socket(
            "message-size = \"64KB\"",
            "socket.a.message-size",
            &["\"64KB\" is no size", "KiB"],
        ),
        socket(
            "message-size = 1.5",
            "socket.a.message-size",
            &["a float", "as \"64KiB\""],
        ),
        socket(
            "queue-size = 0",
            "socket.a.queue-size",
            &["0 is out of range"],
        ),
        socket(
            "slow-client = \"kick\"",
            "socket.a.slow-client",
            &["\"wait\", \"disconnect\" or \"drop\""],
        ),
        socket(
            "slow-timeout = \"0s\"",
            "socket.a.slow-timeout",
            &["from 1ms"],
        ),
        socket(
            "idle-timeout = \"5 parsecs\"",
            "socket.a.idle-timeout",
            &["\"parsecs\" is no unit"],
        ),
        socket(
            "idle-timeout = \"5M\"",
            "socket.a.idle-timeout",
            &["\"M\" counts months", "write min for minutes"],
        ),
        socket(
            "idle-timeout = \"1h 2years\"",
            "socket.a.idle-timeout",
            &["\"years\" counts months or years"],
        ),
        socket(
            "idle-timeout = \"soon\"",
            "socket.a.idle-timeout",
            &["no span of time", "or \"never\""],
        ),
        socket(
            "stamp = \"yes\"",
            "socket.a.stamp",
            &["must be true or false"],
        ),
        record(
            "file = \"records.json\"",
            "socket.a.record.file",
            &["\"records.json\" is not absolute"],
        ),
        record(
            "file = \"@records\"",
            "socket.a.record.file",
            &["\"@records\" cannot be abstract"],
        ),
        record(
            "mode = \"0o640\"",
            "socket.a.record.mode",
            &["\"0o640\" is no mode"],
        ),
        record(
            "mode = \"0044\"",
            "socket.a.record.mode",
            &["\"0044\" gives the owner less", "\"0644\""],
        ),
        record(
            "file = \"/a/b.00000000000000000001\"",
            "socket.a.record.file",
            &["name of another record's segment", "20 digits"],
        ),
        record(
            "format = \"csv\"",
            "socket.a.record.format",
            &["\"json\", \"text\" or \"raw\""],
        ),
        record("keep = -1", "socket.a.record.keep", &["from 0 to 1000000"]),
        record(
            "rotate-size = \"4095B\"",
            "socket.a.record.rotate-size",
            &["from 4KiB to 1048576GiB, or \"never\""],
        ),
        record(
            "rotate-age = \"500ms\"",
            "socket.a.record.rotate-age",
            &["1s", "or \"never\""],
        ),
        record(
            "sync = 1",
            "socket.a.record.sync",
            &["an integer", "true or false"],
        ),
    ]
}

fn contradictions() -> Vec<Wrong> {
    let twice =
        |path: &str| format!("[socket.a]\npath = \"/run/a.sock\"\n[socket.b]\npath = \"{path}\"\n");
    let records = |path: &str| {
        let collect = "service = \"collect\"\nframing = \"lines\"";
        let file = "record.file = \"/var/log/a.log\"";
        let a = format!("[socket.a]\npath = \"/run/a.sock\"\n{collect}\n{file}\n");
        format!("{a}[socket.b]\npath = \"/run/b.sock\"\n{collect}\nrecord.file = \"{path}\"\n")
    };
    vec![
        socket(
            "service = \"collect\"",
            "socket.a.service",
            &["framing = \"none\"", "service = \"collect\"", "lines"],
        ),
        socket(
            "stamp = true\nservice = \"relay\"",
            "socket.a.stamp",
            &[
                "stamp = true contradicts framing = \"none\"",
                "use lines, nul",
            ],
        ),
        socket(
            "stamp = true\nframing = \"lines\"",
            "socket.a.stamp",
            &["stamp = true contradicts service = \"echo\""],
        ),
        socket(
            "history = 5",
            "socket.a.history",
            &["history = 5 contradicts service = \"echo\""],
        ),
        socket(
            "history = 5\nservice = \"relay\"",
            "socket.a.history",
            &["history = 5 contradicts framing = \"none\"", "lines"],
        ),
        socket(
            "history-size = \"600KiB\"\nhistory = 5\nservice = \"relay\"\nframing = \"lines\"",
            "socket.a.history-size",
            &[
                "\"600KiB\" is over half of queue-size",
                "\"512KiB\" or less",
            ],
        ),
        socket(
            "ack = true\nservice = \"collect\"\nframing = \"nul\"",
            "socket.a.ack",
            &["ack = true contradicts", "name one"],
        ),
        record(
            "sync = true\nfile = \"\"",
            "socket.a.record.sync",
            &["sync = true contradicts file = \"\"", "name one"],
        ),
        socket(
            "answer-abstract = true",
            "socket.a.answer-abstract",
            &["answer-abstract = true contradicts type = \"stream\""],
        ),
        socket(
            "answer-abstract = true\ntype = \"datagram\"\nservice = \"collect\"",
            "socket.a.answer-abstract",
            &["answer-abstract = true contradicts service = \"collect\""],
        ),
        socket(
            "queue-size = \"256KiB\"\nstamp = true\nservice = \"relay\"\nframing = \"nul\"",
            "socket.a.queue-size",
            &["stamped", "\"524800B\" or more"],
        ),
        socket(
            "framing = \"none\"\nrecord = {}",
            "socket.a.framing",
            &["the record table"],
        ),
        socket(
            "framing = \"fixed:70000\"",
            "socket.a.framing",
            &["\"fixed:70000\"", "message-size = \"64KiB\""],
        ),
        socket(
            "queue-size = \"64KiB\"\nframing = \"lines\"",
            "socket.a.queue-size",
            &["message-size = \"64KiB\"", "\"65538B\" or more"],
        ),
        socket(
            "queue-size = \"64KiB\"\ntype = \"seqpacket\"",
            "socket.a.queue-size",
            &[
                "queue-size = \"64KiB\" cannot hold one message of message-size = \"64KiB\"",
                "4 bytes of its length",
                "write \"65540B\" or more",
            ],
        ),
        socket(
            "message-size = \"5MiB\"\nqueue-size = \"8MiB\"\ntype = \"seqpacket\"",
            "socket.a.message-size",
            &[
                "message-size = \"5MiB\" contradicts type = \"seqpacket\"",
                "at most 4MiB",
            ],
        ),
        socket(
            "framing = \"lines\"\ntype = \"seqpacket\"",
            "socket.a.framing",
            &["framing = \"lines\" contradicts type = \"seqpacket\""],
        ),
        socket(
            "queue-size = \"1KiB\"\nframing = \"fixed:2048\"",
            "socket.a.queue-size",
            &["framing = \"fixed:2048\"", "\"2KiB\" or more"],
        ),
        record(
            "queue-size = \"64KiB\"",
            "socket.a.record.queue-size",
            &["message-size = \"64KiB\"", "as json", "\"524800B\""],
        ),
        record(
            "queue-size = \"600KiB\"\nparse = \"syslog\"",
            "socket.a.record.queue-size",
            &[
                "message-size = \"64KiB\"",
                "as json with fields",
                "\"918272B\"",
            ],
        ),
        record(
            "parse = \"syslog\"\nformat = \"text\"",
            "socket.a.record.parse",
            &["parse = \"syslog\" contradicts format = \"text\""],
        ),
        record(
            "parse = \"rfc5424\"",
            "socket.a.record.parse",
            &["write \"none\" or \"syslog\""],
        ),
        record(
            "rotate-size = \"1GiB\"",
            "socket.a.record.rotate-size",
            &["rotate-size = \"1GiB\" contradicts file = \"\"", "name one"],
        ),
        record(
            "rotate-age = \"1day\"\nfile = \"\"",
            "socket.a.record.rotate-age",
            &["contradicts file = \"\""],
        ),
        wrong(
            "[socket.a]\npath = \"@a\"\nmode = \"0660\"\n",
            3,
            "socket.a.mode",
            &["mode = \"0660\" contradicts path = \"@a\"", "no file"],
        ),
        wrong(
            "[socket.a]\npath = \"@a\"\ngroup = \"adm\"\n",
            3,
            "socket.a.group",
            &["group = \"adm\" contradicts path"],
        ),
        wrong(
            &twice("%t//a.sock"),
            4,
            "socket.b.path",
            &["socket.a.path too"],
        ),
        wrong(
            &format!("{}\nrecord.mode = \"0600\"", records("%L/a.log")),
            10,
            "socket.b.record.file",
            &["socket.a.record.file too", "the same in both record tables"],
        ),
        wrong(
            &records("/run/b.sock"),
            10,
            "socket.b.record.file",
            &["socket.b.path too", "its own file"],
        ),
        wrong(
            &twice("/run/a.sock.lock"),
            4,
            "socket.b.path",
            &["is the lock file of socket.a.path too"],
        ),
        wrong(
            "[socket.a]\npath = \"/run/b.lock\"\n[socket.b]\npath = \"/run/b\"\n",
            4,
            "socket.b.path",
            &["lock file is socket.a.path too"],
        ),
        wrong(
            &records("/run/a.sock.lock"),
            10,
            "socket.b.record.file",
            &["is the lock file of socket.a.path too"],
        ),
        daemon(
            "[limits]\nclients-per-user = 9\nclients = 8",
            "limits.clients-per-user",
            &["clients-per-user = 9 is over limits.clients = 8"],
        ),
        wrong(
            "limits.clients = 8\n[socket.a]\npath = \"/a\"\nclients = 9\n",
            4,
            "socket.a.clients",
            &["clients = 9 is over limits.clients = 8"],
        ),
    ]
}
