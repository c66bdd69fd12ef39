//! `udsc top`: who is connected and how much passes, refreshed each second. A thread asks the daemon, so that an
//! answer that takes long keeps no key waiting; `view` is what is seen, drawn from the answers and the keys.
//!
//! The terminal is left as it was: also after a panic, and by a signal that ends udsc.

mod rates;
mod view;

use std::{
    io::{self, IsTerminal},
    panic,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::{
        cursor::Show,
        event::{self, Event, KeyEventKind},
        execute,
        terminal::disable_raw_mode,
    },
};
use serde_json::Value;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

use super::{
    Options, clients,
    control::{self, Control, Unanswered},
    daemon::only_daemon,
    failure::Failure,
};
use crate::control::{Client, Socket, Sockets, Status};
use view::{Then, View};

/// How often the daemon is asked.
const REFRESH: Duration = Duration::from_secs(1);
/// How soon an answer or a signal is seen while no key comes.
const LOOK: Duration = Duration::from_millis(100);
/// How long leaving the screen may take after a signal.
const LEAVE: Duration = Duration::from_secs(1);

/// What the daemon said at a time.
struct Sample {
    at: Instant,
    status: Status,
    sockets: Vec<Socket>,
    clients: Vec<Client>,
}

/// An answer; or why there is none.
type Answer = Result<Sample, String>;

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    only_daemon(options, false)?;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let text = "top needs a terminal: udsc status and udsc clients print the same";
        return Err(Failure::Told(text.into()));
    }
    let control = control::connect(options)?;
    let signal = watch_signals().map_err(|error| Failure::System("signals", error))?;
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // ratatui, which puts the rest back where something panics, leaves that out.
        let _ = execute!(io::stdout(), Show);
        hook(info);
    }));
    let mut terminal = ratatui::try_init().map_err(|error| Failure::Standard("output", error))?;
    let (sender, answers) = sync_channel(1);
    let options = options.clone();
    // Not waited for: it may be asleep, or at a question.
    thread::spawn(move || ask(&options, control, &sender));
    let shown = show(&mut terminal, &answers, &signal);
    // Shows the cursor again.
    drop(terminal);
    ratatui::restore();
    match signal.load(Ordering::Relaxed) {
        0 => shown.map_err(|error| Failure::Standard("output", error)),
        number => {
            emulate_default_handler(number).map_err(|error| Failure::System("signals", error))
        }
    }
}

/// Which signal has come, if any, of those that end it. The screen is left by who draws; where writing to the terminal
/// takes for ever, the signal ends udsc all the same, and the modes at least are as they were.
fn watch_signals() -> io::Result<Arc<AtomicI32>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT])?;
    let signal = Arc::new(AtomicI32::new(0));
    let seen = Arc::clone(&signal);
    thread::spawn(move || {
        for number in signals.forever() {
            seen.store(number, Ordering::Relaxed);
            thread::sleep(LEAVE);
            let _ = disable_raw_mode();
            let _ = emulate_default_handler(number);
        }
    });
    Ok(signal)
}

/// Asks until nobody listens any more. Connects again where the connection ends.
fn ask(options: &Options, control: Control, answers: &SyncSender<Answer>) {
    let mut control = Some(control);
    loop {
        let mut conn = match control.take() {
            Some(control) => Ok(control),
            None => control::connect(options),
        };
        let answer = match &mut conn {
            Ok(conn) => sample(conn).map_err(Failure::from),
            Err(failure) => Err(Failure::Told(failure.to_string())),
        };
        // After an error nothing is certain of the connection.
        control = conn.ok().filter(|_| answer.is_ok());
        if answers
            .send(answer.map_err(|failure| failure.to_string()))
            .is_err()
        {
            return;
        }
        thread::sleep(REFRESH);
    }
}

fn sample(control: &mut Control) -> Result<Sample, Unanswered> {
    let status = control.call("Status", Value::Null)?;
    let Sockets { mut sockets } = control.call("Sockets", Value::Null)?;
    sockets.retain(|socket| !socket.is_control());
    let clients = clients::ask(control, None, None)?;
    Ok(Sample {
        at: Instant::now(),
        status,
        sockets,
        clients,
    })
}

/// Draws until a key or a signal ends it.
fn show(
    terminal: &mut DefaultTerminal,
    answers: &Receiver<Answer>,
    signal: &AtomicI32,
) -> io::Result<()> {
    let mut view = View::default();
    while signal.load(Ordering::Relaxed) == 0 {
        let mut is_new = false;
        for answer in answers.try_iter() {
            view.take(answer);
            is_new = true;
        }
        if is_new {
            terminal.draw(|frame| view.draw(frame))?;
        }
        if !event::poll(LOOK)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && view.press(key) == Then::Quit
        {
            return Ok(());
        }
        terminal.draw(|frame| view.draw(frame))?;
    }
    Ok(())
}
