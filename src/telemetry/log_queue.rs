//! Between the threads that log and the log: a bounded queue, and one thread that writes.
//!
//! The reader of the log may be slow, or may have stopped. No request, probe, refresh or shutdown waits for it: lines
//! that find no room are dropped and counted, those of low levels first, and once lines flow again one of them says
//! how many are missing. `tracing-appender` has such a queue, which counts lines whatever their length and knows no
//! levels.

use std::{
    fs::File,
    io::{self, Write},
    mem,
    os::fd::AsFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::escape::escaped;

/// Bytes of lines that wait: some thousand lines. Beside them are at most as many that are being written.
const CAPACITY: usize = 1024 * 1024;

/// What a buffer keeps of its room when it is empty.
const KEPT: usize = 64 * 1024;

/// Pause before another attempt, where standard error does not block and takes nothing now.
const AGAIN: Duration = Duration::from_millis(10);

/// The levels, from the one that is kept longest; a level's place is its place in counts.
pub(super) const LEVELS: [(Level, &str); 5] = [
    (Level::ERROR, "error"),
    (Level::WARN, "warn"),
    (Level::INFO, "info"),
    (Level::DEBUG, "debug"),
    (Level::TRACE, "trace"),
];

/// Lines by level.
type Counts = [u64; LEVELS.len()];

/// The queue of the process's log.
#[derive(Debug, Clone)]
pub(super) struct LogQueue {
    shared: Arc<Shared>,
    /// Characters that JSON does not escape and viewers mistake are escaped.
    escapes: bool,
}

#[derive(Debug)]
struct Shared {
    queued: Mutex<Queued>,
    filled: Condvar,
    emptied: Condvar,
    dropped: [AtomicU64; LEVELS.len()],
}

#[derive(Debug, Default)]
struct Queued {
    /// Whole lines, one after the other.
    lines: Vec<u8>,
    /// How many lines of each level these are.
    counts: Counts,
    /// Lines dropped of which no line speaks yet.
    untold: Counts,
    /// The thread waits for lines.
    is_idle: bool,
}

impl LogQueue {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    /// When standard error is closed, or no thread can be started.
    pub(super) fn to_stderr(escapes: bool) -> io::Result<Self> {
        // A descriptor of its own: the lock of the usual one would be held while the reader makes us wait.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Self::start(stderr, escapes)
    }

    fn start(log: impl Write + Send + 'static, escapes: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queued: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: Default::default(),
        });
        let of_thread = shared.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || of_thread.write_all_to(log))?;
        Ok(Self { shared, escapes })
    }

    /// Lines dropped so far, by level.
    pub(super) fn dropped(&self) -> [(&'static str, u64); LEVELS.len()] {
        let mut counts = self.shared.dropped.iter().map(|count| count.load(Relaxed));
        LEVELS.map(|(_, level)| (level, counts.next().unwrap_or_default()))
    }

    /// Waits until all lines so far are written, and no longer than `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut queued = self.shared.queued();
        while !(queued.is_idle && queued.lines.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queued = self
                .shared
                .emptied
                .wait_timeout(queued, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(queued, _)| queued);
        }
    }
}

/// Whether a line of this level is still taken: others leave room for errors, and details for both.
fn fits(bytes: usize, level: usize) -> bool {
    bytes
        <= match level {
            0 => CAPACITY,
            1 => CAPACITY / 8 * 7,
            2 => CAPACITY / 4 * 3,
            _ => CAPACITY / 2,
        }
}

fn place(level: Level) -> usize {
    LEVELS.iter().position(|(known, _)| *known == level).unwrap_or(0)
}

impl Shared {
    fn queued(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8], level: usize) {
        let mut queued = self.queued();
        if !fits(queued.lines.len() + line.len(), level) {
            queued.untold[level] += 1;
            self.dropped[level].fetch_add(1, Relaxed);
            return;
        }
        queued.lines.extend_from_slice(line);
        queued.counts[level] += 1;
        if mem::take(&mut queued.is_idle) {
            drop(queued);
            self.filled.notify_one();
        }
    }

    /// What the thread does. It ends with the process.
    fn write_all_to(&self, mut log: impl Write) {
        let mut lines = Vec::new();
        loop {
            let (counts, untold) = self.take(&mut lines);
            if write_all(&mut log, &lines).is_err() {
                self.lost(counts, untold);
            } else if untold != [0; LEVELS.len()] {
                let [errors, warnings, infos, debugs, traces] = untold;
                tracing::warn!(
                    errors,
                    warnings,
                    infos,
                    debugs,
                    traces,
                    "Log lines were dropped, by level, because they were not read in time."
                );
            }
            lines.clear();
            lines.shrink_to(KEPT);
        }
    }

    /// Waits for lines, and takes all there are: their counts, and the lines dropped so far.
    fn take(&self, lines: &mut Vec<u8>) -> (Counts, Counts) {
        let mut queued = self.queued();
        while queued.lines.is_empty() {
            queued.is_idle = true;
            self.emptied.notify_all();
            queued = self.filled.wait(queued).unwrap_or_else(PoisonError::into_inner);
        }
        queued.is_idle = false;
        mem::swap(lines, &mut queued.lines);
        (mem::take(&mut queued.counts), mem::take(&mut queued.untold))
    }

    /// Counts lines that could not be written; the reader is gone, or the disk behind it is full. Part of them may have
    /// been.
    fn lost(&self, counts: Counts, untold: Counts) {
        let mut queued = self.queued();
        for (level, count) in counts.into_iter().enumerate() {
            self.dropped[level].fetch_add(count, Relaxed);
            queued.untold[level] += count + untold[level];
        }
    }
}

/// As `Write::write_all`, for a descriptor that may not block too: the process that started this one may have made it so.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread has nothing else to wait for"
)]
fn write_all(log: &mut impl Write, mut lines: &[u8]) -> io::Result<()> {
    while !lines.is_empty() {
        match log.write(lines) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => lines = lines.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes one line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    queue: &'a LogQueue,
    level: usize,
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = Line<'a>;

    /// For what names no level; nothing does.
    fn make_writer(&'a self) -> Line<'a> {
        Line {
            queue: self,
            level: 0,
        }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Line<'a> {
        Line {
            queue: self,
            level: place(*line.level()),
        }
    }
}

impl Write for Line<'_> {
    /// Takes all of it: a line comes in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shared = &self.queue.shared;
        match self.queue.escapes.then(|| escaped(line)).flatten() {
            Some(escaped) => shared.push(escaped.as_bytes(), self.level),
            None => shared.push(line, self.level),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A log that takes a piece whenever it is told to.
    struct Stalled {
        may_write: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may_write
                .recv()
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalled() -> (LogQueue, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (go, may_write) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let log = Stalled {
            may_write,
            written: written.clone(),
        };
        (LogQueue::start(log, true).unwrap(), go, written)
    }

    fn dropped(queue: &LogQueue) -> [u64; LEVELS.len()] {
        queue.dropped().map(|(_, count)| count)
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_errors_find_room_for_longest() {
        let (queue, go, written) = stalled();
        queue.shared.push(b"the first", 0);
        let is_being_written = || {
            let queued = queue.shared.queued();
            !queued.is_idle && queued.lines.is_empty()
        };
        while !is_being_written() {
            thread::yield_now();
        }
        let line = [b'x'; 1024];
        let mut taken = [0; LEVELS.len()];
        // The lowest level first; each fills what it may.
        for level in (0..LEVELS.len()).rev() {
            for _ in 0..2_000 {
                queue.shared.push(&line, level);
            }
            taken[level] = 2_000 - dropped(&queue)[level];
        }
        assert_eq!(
            taken,
            [128, 128, 256, 0, 512],
            "as many KiB as each level may fill"
        );
        for _ in 0..10 {
            go.send(()).unwrap();
        }
        queue.flush(Duration::from_secs(60));
        assert_eq!(written.lock().unwrap().len(), "the first".len() + CAPACITY);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (queue, go, _) = stalled();
        drop(go);
        for _ in 0..3 {
            queue.shared.push(b"a line\n", 1);
        }
        queue.flush(Duration::from_secs(60));
        assert_eq!(dropped(&queue), [0, 3, 0, 0, 0]);
    }

    #[test]
    fn the_end_waits_for_no_reader() {
        let (queue, _go, _) = stalled();
        queue.shared.push(b"a line\n", 0);
        queue.flush(Duration::from_millis(10));
        assert!(!queue.shared.queued().is_idle);
    }
}
