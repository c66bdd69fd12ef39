//! `udsc`, the client: its arguments, and which part does what they ask for. A command that talks to a socket gets
//! a `Connection`, which `target` finds; one that asks the daemon gets a `Control`.

mod apply;
mod bench;
mod check;
mod clients;
mod connect;
mod connection;
mod control;
mod daemon;
mod datagrams;
mod delivery;
mod disconnect;
mod failure;
mod listen;
mod messages;
mod metrics;
mod moment;
mod packets;
mod ping;
mod poll;
mod read;
mod reload;
mod send;
mod show;
mod socket;
mod statistics;
mod status;
mod stdio;
mod systemctl;
mod table;
mod tap;
mod target;
mod terminal;
mod top;
mod troubles;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{
    Args, CommandFactory, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    config::{SocketType, read_size},
    frame::Framing,
};
use failure::Failure;

/// Longest message that udsc holds, in bytes of its body. Bytes that pass unchanged have no limit.
pub(crate) const MESSAGE_LIMIT: usize = 64 << 20;

/// How long udsc waits for a server to close when it has no more to say.
const LINGER: Duration = Duration::from_secs(2);

/// Talk to udsd, or to any Unix domain socket.
#[derive(Debug, Parser)]
#[command(
    name = "udsc",
    version,
    max_term_width = 100,
    after_help = "Without COMMAND: connect. Spans of time are written as \"250ms\" or \"5s\".\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// The system's daemon, not the user's
    #[arg(long, global = true, help_heading = "Which server")]
    system: bool,
    // Not behind a command: of some, --user names a sender.
    /// The user's daemon; without either option the user's if it runs, else the system's
    #[arg(long, conflicts_with_all = ["system", "config"], help_heading = "Which server")]
    user: bool,
    /// The daemon that serves FILE
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "system",
        help_heading = "Which server"
    )]
    config: Option<PathBuf>,
    /// A socket's NAME in udsd.toml, a path (with a '/') or "@name" (abstract); without it the first
    /// of the file
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME-OR-PATH",
        help_heading = "Which server"
    )]
    socket: Option<OsString>,
    /// Type of the socket, instead of what udsd.toml says [of a path: stream]; on seqpacket and
    /// datagram sockets one message is one packet
    #[arg(long = "type", global = true, value_name = "TYPE", help_heading = "Which server", value_parser = socket_type())]
    kind: Option<SocketType>,
    /// none, lines, nul, length-prefixed, fixed:N, cstring:N or syslog, instead of what udsd.toml
    /// says [of a path: lines]; packets need none
    #[arg(long, global = true, help_heading = "Which server")]
    framing: Option<Framing>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Standard input to messages, incoming messages to standard output, until both ends are done
    ///
    /// On a stream under framing none and lines all bytes pass unchanged. Under any other, and on
    /// packets, each line of standard input is one message, and each incoming message is printed as a
    /// line. Once the server has read everything, udsc passes the end of input on and receives until the server
    /// closes; it leaves a relay after another 100 ms. It fails where the server closes before that, or where
    /// an echo still owes something.
    ///
    /// Datagrams have no end of stream. After the end of input udsc leaves when nothing has come for 2 seconds. A
    /// socket that udsd.toml says collects, it leaves at once; one that echoes, when everything is back, and it
    /// fails if that does not come.
    Connect,
    /// Send each argument as one message, then wait for answers
    ///
    /// Done once the server has read everything and has closed after our end. udsc leaves a relay after another
    /// 100 ms, and a server that no udsd.toml has after 2 seconds.
    ///
    /// A datagram is not sent again, and only sending shows that a datagram server is gone: --timeout bounds the
    /// wait for its answers.
    Send(send::Plan),
    /// Print incoming messages, each on a line (of a stream under framing none: the bytes), until the
    /// server closes
    ///
    /// A server that closes before the first message is a failure: that is all that a refused client sees.
    ///
    /// Not on datagram sockets: they answer only who has sent something.
    Listen(listen::Plan),
    /// Measure round trips over an echo socket; fails if one is lost
    Ping(ping::Plan),
    /// Measure how many messages a socket carries and how long they take, with every byte checked
    ///
    /// On an echo each client sends, and its messages come back. On a relay one client sends and each of the
    /// others receives every message; latency is from the sending to each delivery. On collect all clients send,
    /// nothing comes back, and the end is as with send: the messages become part of the record.
    ///
    /// Prints messages and bytes of their bodies a second, of a relay by deliveries, latencies and how they are
    /// spread. Fails at the first message that is not, byte for byte and in order, the one that was due; where
    /// others send on the same relay too. Lost datagrams are counted while it goes on, and are a failure at the end.
    Bench(bench::Plan),
    /// How the daemon and its sockets are: what was refused, dropped and closed and why, which record is behind
    ///
    /// Reasons are written as the keys of udsd.toml that set the limits. Behind them stand the last lines that the
    /// log has of the socket, one of each kind. An idle daemon, whose sockets systemd holds, is not started by this.
    Status(status::Plan),
    /// Who is connected: what they send and get, what waits for them, whom they hold up
    ///
    /// Of one socket with -s NAME. Who floods: --sort messages-in.
    Clients(clients::Plan),
    /// End a client, by its number in `udsc clients` and in the log; as root or udsd's own user
    Disconnect(disconnect::Plan),
    /// Have the daemon read its file again; what is wrong with it is printed, and the daemon serves as before
    ///
    /// As root or udsd's own user.
    Reload(reload::Plan),
    /// All counts of the daemon, as text for Prometheus
    Metrics(metrics::Plan),
    /// Print the messages that pass on a socket, a line each: when, from whom, to how many, what
    ///
    /// The daemon waits for nobody here: what is not read in time is missed, and that is told.
    Tap(tap::Plan),
    /// Read the record of a socket, across its segments, as journalctl reads the journal
    ///
    /// Without --from, --since or --last from its start. Times are local ones. The daemon need not run.
    Read(read::Plan),
    /// Watch who is connected and how much passes, refreshed each second
    ///
    /// Keys stand in the last line. It goes on over a restart of the daemon.
    Top,
    /// Have systemd's sockets and the daemon follow udsd.toml
    ///
    /// Checks the file, has systemd read its units anew, makes the sockets anew that differ from the
    /// file, stops those that are gone, and restarts or reloads the daemon if it runs. Clients stay.
    /// Prints what became of each socket; the exit code is 0 only if all is as the file says. With a
    /// faulty file nothing is touched. As root, or with --user for your own.
    Apply(apply::Plan),
}

impl Command {
    /// Why a socket that answers nothing is of no use to it.
    fn unanswered(&self) -> Option<&'static str> {
        match self {
            Command::Ping(_) => Some("ping needs service = \"echo\""),
            Command::Listen(_) => Some("listen would wait for ever"),
            Command::Send(plan) if plan.wait > 0 => Some("send --wait would wait for ever"),
            _ => None,
        }
    }
}

fn socket_type() -> impl TypedValueParser<Value = SocketType> {
    PossibleValuesParser::new(SocketType::WORDS).try_map(|word| word.parse::<SocketType>())
}

/// Its options and commands, for whoever describes them.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Reads how long a message shall be, in bytes.
fn message_size(text: &str) -> Result<usize, String> {
    let size = read_size(text)?.and_then(|size| size.try_into().ok());
    size.filter(|size| (1..=MESSAGE_LIMIT).contains(size))
        .ok_or_else(|| format!("write a size from 1 to {MESSAGE_LIMIT} bytes"))
}

/// Runs `udsc` with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("udsc: {failure}");
            failure.exit_code().into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let command = arguments.command.as_ref().unwrap_or(&Command::Connect);
    let options = &arguments.options;
    let conn = || target::connect(options, command.unanswered());
    match command {
        Command::Apply(plan) => apply::run(options, plan),
        Command::Clients(plan) => clients::run(options, plan),
        Command::Disconnect(plan) => disconnect::run(options, plan),
        Command::Metrics(plan) => metrics::run(options, plan),
        Command::Read(plan) => read::run(options, plan),
        Command::Reload(plan) => reload::run(options, plan),
        Command::Status(plan) => status::run(options, plan),
        Command::Tap(plan) => tap::run(options, plan),
        Command::Top => top::run(options),
        Command::Connect => connect::run(conn()?),
        Command::Send(plan) => send::run(&conn()?, plan),
        Command::Listen(plan) => listen::run(&conn()?, plan),
        Command::Ping(plan) => ping::run(conn()?, plan),
        Command::Bench(plan) => bench::run(&arguments.options, plan),
    }
}
