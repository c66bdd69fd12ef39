//! What a benchmark run needs around it: its options, the machine it runs on, a fresh folder, and
//! an orderly end when it is interrupted.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, fs, process, thread};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Events taken by one wait: the same for the floor and the load.
pub(crate) const MAX_EVENTS: usize = 1024;

/// How long, and which part, to measure.
pub(crate) struct Options {
    /// Time for each server in one pair.
    pub(crate) span: Duration,
    pub(crate) pairs: usize,
    /// Only sections whose name holds this word.
    pub(crate) filter: Option<String>,
    /// Not started by `cargo bench`: one short pair, to see that it all works.
    pub(crate) trial: bool,
}

impl Options {
    /// From UDSD_BENCH_SECONDS, UDSD_BENCH_PAIRS and the arguments (`cargo bench` adds `--bench`).
    pub(crate) fn read(arguments: &[String]) -> Outcome<Options> {
        let mut filter = None;
        let mut trial = true;
        for argument in arguments {
            match argument.as_str() {
                "--bench" => trial = false,
                flag if flag.starts_with('-') => {
                    return Err(format!("unknown option {flag}").into());
                }
                word if filter.is_none() => filter = Some(word.to_owned()),
                word => return Err(format!("one filter word only, not also {word}").into()),
            }
        }
        let (seconds, pairs) = if trial { (0.1, 1) } else { (1.0, 5) };
        let seconds: f64 = from_env("UDSD_BENCH_SECONDS", seconds)?;
        if !(0.01..=600.0).contains(&seconds) {
            return Err("UDSD_BENCH_SECONDS must be from 0.01 to 600".into());
        }
        Ok(Options {
            span: Duration::from_secs_f64(seconds),
            pairs: from_env("UDSD_BENCH_PAIRS", pairs)?.max(1),
            filter,
            trial,
        })
    }

    pub(crate) fn wants(&self, section: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|word| section.contains(word.as_str()))
    }
}

fn from_env<T: FromStr>(name: &str, default: T) -> Outcome<T> {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{name}={text} is not a number").into()),
        Err(_) => Ok(default),
    }
}

/// One line on the machine: a figure without it says little.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    format!(
        "{} cores ({model}), Linux {}, {} open files, load average {}",
        thread::available_parallelism().map_or(0, usize::from),
        kernel.trim(),
        open_files(),
        load_average(),
    )
}

/// Datagrams that may wait at a socket before its senders have to.
pub(crate) fn datagram_queue() -> String {
    let text = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap_or_default();
    text.trim().to_owned()
}

/// Of the last minute: on a busy machine only the figures of server CPU mean much.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// Raises the soft limit of open files to the hard one, for this process and all it starts.
pub(crate) fn raise_open_files() -> Outcome<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(())
}

/// How many descriptors a process may have.
pub(crate) fn open_files() -> usize {
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| limit as usize)
}

/// Keeps this thread, and the processes it starts, on one core until dropped.
pub(crate) struct OneCore(CpuSet);

impl OneCore {
    pub(crate) fn hold() -> Outcome<OneCore> {
        let allowed = sched_getaffinity(None)?;
        let first = (0..CpuSet::MAX_CPU)
            .find(|core| allowed.is_set(*core))
            .ok_or("no core to run on")?;
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one)?;
        Ok(OneCore(allowed))
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.0) {
            eprintln!("cannot leave the one core again: {error}");
        }
    }
}

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on SIGINT and SIGTERM end the run through its destructors.
pub(crate) fn catch_signals() -> Outcome<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

pub(crate) fn check_interrupted() -> Outcome<()> {
    match INTERRUPTED.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => Err("interrupted".into()),
        _ => Ok(()),
    }
}

/// A fresh folder, removed with all that is in it when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Outcome<Folder> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("udsd-bench-{}-{count}", process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the measured server listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// Where a server that stores messages puts them.
    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("record")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
