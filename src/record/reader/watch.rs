//! Waits for a record to go on.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

use crate::record::segment;

/// How often a record is looked at of which the kernel tells nothing: on a network's file system, in another
/// folder, or where there are too many watches already.
const UNTOLD: Duration = Duration::from_millis(500);

/// A watch of the folder in which a record is. It is to be made before the end of the record is seen.
#[derive(Debug)]
pub struct Watch(Option<OwnedFd>);

impl Watch {
    /// Of the record `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE;
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|fd| {
            inotify::add_watch(&fd, segment::folder(path), changes)?;
            Ok(fd)
        });
        // Looking every now and then is enough.
        Watch(watch.ok())
    }

    /// Waits until something may have changed since the last call. True once nobody reads at the other end of
    /// `output`.
    ///
    /// # Errors
    /// Those of `poll(2)`.
    pub fn wait(&self, output: BorrowedFd<'_>) -> io::Result<bool> {
        // Errors, which are always told, and nothing else.
        let mut fds = vec![PollFd::from_borrowed_fd(output, PollFlags::empty())];
        let watch = self.0.as_ref().map(AsFd::as_fd);
        fds.extend(watch.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let longest = Timespec::try_from(UNTOLD).ok();
        match poll(&mut fds, longest.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(watch) = watch {
            // What changed does not matter: all is looked at.
            while rustix::io::read(watch, &mut [0; 4096]).is_ok_and(|read| read > 0) {}
        }
        Ok(!fds[0].revents().is_empty())
    }
}
