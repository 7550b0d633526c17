//! Reading on threads of their own. A file system that hangs, a network's say, keeps a thread for as long as it pleases: one
//! file each, and nothing that reads other files.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

/// Files that may hang at a time. Further ones are not read.
const MAX_HANGING: usize = 64;

/// Files for which a thread waits that is not waited for any longer.
static HANGING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn hanging() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the machine has no thread left for a file.
fn no_thread(error: &io::Error) -> io::Error {
    let message = format!("it cannot be read: the system has no thread for it: {error}");
    io::Error::new(error.kind(), message)
}

fn hangs(patience: Duration) -> io::Error {
    let message = format!(
        "it cannot be read within {} s; the others are read without it",
        patience.as_secs_f64()
    );
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// What a thread reports of a file, by its number.
enum Report<T> {
    Begins(usize),
    Read(usize, io::Result<T>),
}

/// The files of one call, by their numbers.
#[derive(Default)]
struct Files {
    left: VecDeque<(usize, PathBuf)>,
    /// Read, whether or not that was heard. Changed only while [`HANGING`] is held, so that none is said to hang that does not.
    read: BTreeSet<usize>,
}

type Shared = Arc<Mutex<Files>>;

fn lock(files: &Shared) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something with each of these files, in their order. One that takes longer than this is left behind, and until that
/// ends it is not tried again. Without a thread to read them, none is waited for.
pub fn read_all<T: Send + 'static>(
    files: Vec<PathBuf>,
    patience: Duration,
    read: impl Fn(&Path) -> io::Result<T> + Send + Sync + 'static,
) -> Vec<(PathBuf, io::Result<T>)> {
    let mut results = BTreeMap::new();
    let mut queue = Files::default();
    {
        let hanging = hanging();
        for (number, file) in files.iter().enumerate() {
            if hanging.contains(file) {
                results.insert(number, Err(hangs(patience)));
            } else {
                queue.left.push_back((number, file.clone()));
            }
        }
    }
    let (queue, read): (Shared, _) = (Arc::new(Mutex::new(queue)), Arc::new(read));
    let (report, reported) = mpsc::channel();
    let is_complete = |results: &BTreeMap<usize, io::Result<T>>| results.len() == files.len();
    let give_up = |results: &mut BTreeMap<_, _>, why: &dyn Fn() -> io::Error| {
        for (number, _) in lock(&queue).left.drain(..) {
            results.insert(number, Err(why()));
        }
    };
    if !is_complete(&results)
        && let Err(error) = start(&queue, &read, &report)
    {
        give_up(&mut results, &|| no_thread(&error));
    }
    let mut begun = None;
    while !is_complete(&results) {
        match reported.recv_timeout(patience) {
            Ok(Report::Begins(number)) => begun = Some(number),
            Ok(Report::Read(number, result)) => {
                // What was left behind is said to hang, even if it has ended since.
                results.entry(number).or_insert(result);
            }
            Err(_) => {
                // Without one the thread has not even begun: the machine is busy.
                let Some((number, file)) = begun.take().and_then(|it: usize| Some((it, files.get(it)?)))
                else {
                    continue;
                };
                let mut hanging = hanging();
                if lock(&queue).read.contains(&number) {
                    continue;
                }
                hanging.insert(file.clone());
                results.entry(number).or_insert_with(|| Err(hangs(patience)));
                if hanging.len() >= MAX_HANGING {
                    give_up(&mut results, &|| hangs(patience));
                } else if let Err(error) = start(&queue, &read, &report) {
                    give_up(&mut results, &|| no_thread(&error));
                }
            }
        }
    }
    let results = results.into_values();
    files.into_iter().zip(results).collect()
}

/// Reads one file, as [`read_all`].
///
/// # Errors
/// As those of reading it, and when that takes too long.
pub fn read_one<T: Send + 'static>(
    file: &Path,
    patience: Duration,
    read: impl Fn(&Path) -> io::Result<T> + Send + Sync + 'static,
) -> io::Result<T> {
    let mut read = read_all(vec![file.to_owned()], patience, read);
    read.pop()
        .map_or_else(|| Err(hangs(patience)), |(_, result)| result)
}

/// Starts a thread that reads what is left.
fn start<T: Send + 'static>(
    files: &Shared,
    read: &Arc<impl Fn(&Path) -> io::Result<T> + Send + Sync + 'static>,
    report: &mpsc::Sender<Report<T>>,
) -> io::Result<()> {
    let (files, read, report) = (files.clone(), read.clone(), report.clone());
    let thread = std::thread::Builder::new().name("reader".into());
    thread.spawn(move || {
        let next = || lock(&files).left.pop_front();
        while let Some((number, file)) = next() {
            // Where the rest was given up, it is not listened to any more.
            let _unheard = report.send(Report::Begins(number));
            let result = read(&file);
            let was_hanging = {
                let mut hanging = hanging();
                lock(&files).read.insert(number);
                hanging.remove(&file)
            };
            let _unheard = report.send(Report::Read(number, result));
            if was_hanging {
                // Another thread reads the rest.
                return;
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_file_that_hangs_keeps_no_other_from_being_read_and_is_not_waited_for_twice() {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let begun = Arc::new(Mutex::new(Vec::new()));
        let read_with = |patience| {
            let (held, begun) = (held.clone(), begun.clone());
            read_all(
                paths(&["/x/a", "/x/hangs", "/x/b", "/x/wrong"]),
                patience,
                move |file| {
                    begun.lock().unwrap().push(file.to_owned());
                    if file.ends_with("hangs") {
                        assert!(held.lock().unwrap().recv().is_err());
                    }
                    if file.ends_with("wrong") {
                        return Err(io::Error::other("wrong"));
                    }
                    Ok(file.to_owned())
                },
            )
        };
        for _ in 0..2 {
            let read = read_with(Duration::from_millis(300));
            let shown: Vec<String> = read
                .iter()
                .map(|(file, result)| match result {
                    Ok(read) => format!("{} {}", file.display(), read == file),
                    Err(error) => format!("{} {error}", file.display()),
                })
                .collect();
            assert_eq!(
                shown,
                [
                    "/x/a true",
                    "/x/hangs it cannot be read within 0.3 s; the others are read without it",
                    "/x/b true",
                    "/x/wrong wrong"
                ]
            );
        }
        let hung = |begun: &[PathBuf]| begun.iter().filter(|file| file.ends_with("hangs")).count();
        assert_eq!(hung(&begun.lock().unwrap()), 1, "one thread waits for it");
        // Once it gives what it has, it is read again.
        drop(release);
        while hanging().contains(Path::new("/x/hangs")) {
            std::thread::yield_now();
        }
        let read = read_with(Duration::from_secs(60));
        assert!(read[1].1.is_ok());
    }

    #[test]
    fn all_are_read_in_their_order() {
        let files: Vec<PathBuf> = (0..500).map(|number| format!("/y/{number}").into()).collect();
        let read = read_all(files.clone(), Duration::from_secs(60), |file| Ok(file.to_owned()));
        let seen: Vec<PathBuf> = read.into_iter().map(|(_, read)| read.unwrap()).collect();
        assert_eq!(seen, files);
        assert!(read_all(Vec::new(), Duration::from_secs(60), |_| Ok(())).is_empty());
        assert!(read_one(Path::new("/y/one"), Duration::from_secs(60), |_| Ok(())).is_ok());
    }
}
