//! The addresses of HEIR's name.
//!
//! A lookup has a thread of its own: a resolver that hangs holds up neither other blocking work nor the end of the process.
//! While it hangs or fails, the addresses that it gave last are used.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::{sync::watch, time};

/// How long a lookup is waited for where an earlier one has given addresses.
const PATIENCE: Duration = Duration::from_millis(250);

/// Lookups at one time.
const MOST_LOOKUPS: u32 = 8;

/// While lookups hang, another one is begun this often: a [`MOST_LOOKUPS`]th of the five seconds after which the system asks a
/// silent server of names again. Together they ask it this often for as long as they hang, so that one that is back is soon
/// heard.
const EVERY: Duration = Duration::from_millis(625);

/// The addresses, or why there are none.
type Found = Result<Arc<[SocketAddr]>, Arc<str>>;

type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks HEIR's name up, as hyper wants it.
#[derive(Debug, Clone)]
pub(super) struct Resolver(Arc<Shared>);

struct Shared {
    look_up: Box<LookUp>,
    state: Mutex<State>,
    /// What the last lookup that ended came to.
    found: watch::Sender<Option<Found>>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Arc<[SocketAddr]>>,
    /// Lookups under way.
    under_way: u32,
    /// Lookups are begun until there is an answer.
    is_asking: bool,
    /// Tells the task that begins them from one before it.
    asking: u64,
    /// How many have begun, and which of them gave the last addresses.
    begun: u64,
    answered: u64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks the system.
    pub(super) fn of_the_system() -> Self {
        Self::new(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    fn new(look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            look_up: Box::new(look_up),
            state: Mutex::default(),
            found: watch::Sender::new(None),
        }))
    }

    /// A way to hear the next answer. Lookups are begun until there is one, whether or not it is still waited for.
    fn ask(&self, host: &str) -> watch::Receiver<Option<Found>> {
        let mut state = self.0.lock();
        // What is published from here on is an answer to this question as well: publishing needs the lock.
        let answers = self.0.found.subscribe();
        if !state.is_asking {
            (state.is_asking, state.asking) = (true, state.asking + 1);
            let (this, host, number) = (self.clone(), host.to_owned(), state.asking);
            drop(state);
            tokio::spawn(async move { this.keep_asking(host, number).await });
        }
        answers
    }

    async fn keep_asking(&self, host: String, number: u64) {
        loop {
            {
                let mut state = self.0.lock();
                if !state.is_asking || state.asking != number {
                    return;
                }
                if state.under_way < MOST_LOOKUPS {
                    state.under_way += 1;
                    state.begun += 1;
                    let lookup = state.begun;
                    drop(state);
                    self.begin(lookup, host.clone());
                }
            }
            time::sleep(EVERY).await;
        }
    }

    /// Looks up in a thread of its own, which has been counted.
    fn begin(&self, lookup: u64, host: String) {
        let under_way = UnderWay(self.0.clone());
        let work = move || {
            let found = match (under_way.0.look_up)(&host) {
                Ok(found) if found.is_empty() => Err("the name has no address".into()),
                Ok(found) => Ok(Arc::from(found)),
                Err(error) => Err(error.to_string().into()),
            };
            let shared = under_way.0.clone();
            drop(under_way);
            shared.note(lookup, found);
        };
        let thread = std::thread::Builder::new().name("heir-name".into());
        if let Err(error) = thread.spawn(work) {
            self.0.note(lookup, Err(error.to_string().into()));
        }
    }

    /// What the next lookup that ends comes to.
    async fn look_up(&self, host: &str) -> Found {
        let mut answers = self.ask(host);
        match answers.changed().await {
            Ok(()) => {
                let found = answers.borrow_and_update().clone();
                found.unwrap_or_else(|| Err("there was no answer".into()))
            }
            Err(_closed) => Err("there was no answer".into()),
        }
    }

    /// The next answer of any lookup that has addresses.
    pub(super) fn answers(&self) -> Answers {
        Answers(self.0.found.subscribe())
    }

    async fn addresses(&self, host: &str) -> Found {
        let known = self.0.lock().known.clone();
        let look_up = self.look_up(host);
        let Some(known) = known else {
            return look_up.await;
        };
        match time::timeout(PATIENCE, look_up).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) | Err(_) => Ok(known),
        }
    }

    /// Looks the name up anew, for those who hear the answers. A lookup that fails, or takes longer than this, says nothing.
    pub(super) async fn look_again(&self, host: &str, timeout: Duration) {
        let _late = time::timeout(timeout, self.look_up(host)).await;
    }
}

/// The answers that have addresses, as they come.
#[derive(Debug)]
pub(super) struct Answers(watch::Receiver<Option<Found>>);

impl Answers {
    /// The next one. `None`: there will be none.
    pub(super) async fn next(&mut self) -> Option<Arc<[SocketAddr]>> {
        loop {
            self.0.changed().await.ok()?;
            if let Some(Ok(found)) = &*self.0.borrow_and_update() {
                return Some(found.clone());
            }
        }
    }
}

/// A lookup, which is one less however it ends.
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of a lookup that has ended. One without addresses is the last word only where no other lookup hangs, and
    /// none is news that was asked for before the last one.
    fn note(&self, lookup: u64, found: Found) {
        let mut state = self.lock();
        if lookup < state.answered {
            return;
        }
        // A failure says nothing that addresses which come after it would not say better.
        if let Ok(found) = &found {
            state.answered = lookup;
            state.known = Some(found.clone());
        }
        state.is_asking &= found.is_err() && state.under_way > 0;
        self.found.send_replace(Some(found));
    }
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let found = this
                .addresses(name.as_str())
                .await
                .map_err(|reason| io::Error::other(&*reason))?;
            Ok(Vec::from(&*found).into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    };

    use super::*;

    fn at(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 0).into()
    }

    /// Answers with what is sent, and counts the questions. Dropping the sender makes it fail.
    fn scripted() -> (mpsc::Sender<Vec<SocketAddr>>, Arc<AtomicUsize>, Resolver) {
        let (answers, script) = mpsc::channel();
        let asked = Arc::new(AtomicUsize::new(0));
        let (counted, script) = (asked.clone(), Mutex::new(script));
        let resolver = Resolver::new(move |host| {
            assert_eq!(host, "heir");
            counted.fetch_add(1, SeqCst);
            script.lock().unwrap().recv().map_err(io::Error::other)
        });
        (answers, asked, resolver)
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_or_fails_does_not_take_away_what_is_known() {
        let (answers, asked, resolver) = scripted();
        answers.send(vec![at(1)]).unwrap();
        assert_eq!(*resolver.addresses("heir").await.unwrap(), [at(1)]);
        // It hangs: what is known is used, for every caller and however often.
        for _ in 0..3 {
            assert_eq!(*resolver.addresses("heir").await.unwrap(), [at(1)]);
        }
        let begun = asked.load(SeqCst);
        for _ in 0..begun {
            answers.send(vec![at(2), at(3)]).unwrap();
        }
        while resolver.0.lock().is_asking {
            time::sleep(Duration::from_millis(1)).await;
        }
        drop(answers);
        assert_eq!(*resolver.addresses("heir").await.unwrap(), [at(2), at(3)]);
    }

    #[tokio::test]
    async fn without_an_answer_so_far_all_wait_for_the_same_one() {
        let began = std::time::Instant::now();
        let (answers, asked, resolver) = scripted();
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let resolver = resolver.clone();
                tokio::spawn(async move { resolver.addresses("heir").await })
            })
            .collect();
        while resolver.0.found.receiver_count() < 5 {
            time::sleep(Duration::from_millis(1)).await;
        }
        answers.send(vec![at(1)]).unwrap();
        for waiting in waiting {
            assert_eq!(*waiting.await.unwrap().unwrap(), [at(1)]);
        }
        let begun = asked.load(SeqCst) as u32;
        assert!(
            begun <= 1 + began.elapsed().div_duration_f32(EVERY) as u32,
            "{begun}"
        );
        // Those that hang still say the same.
        (1..begun).for_each(|_| answers.send(vec![at(1)]).unwrap());
        while resolver.0.lock().under_way > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
        answers.send(Vec::new()).unwrap();
        assert_eq!(
            *resolver.addresses("heir").await.unwrap(),
            [at(1)],
            "no address is none to use"
        );
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_is_not_the_last_word() {
        let (hang, hangs) = mpsc::channel::<()>();
        let (asked, hangs) = (AtomicUsize::new(0), Mutex::new(hangs));
        let resolver = Resolver::new(move |_| {
            if asked.fetch_add(1, SeqCst) == 0 {
                let _for_ever = hangs.lock().unwrap().recv();
            }
            Ok(vec![at(1)])
        });
        assert_eq!(*resolver.addresses("heir").await.unwrap(), [at(1)]);
        assert_eq!(resolver.0.lock().under_way, 1);
        drop(hang);
    }

    #[tokio::test(start_paused = true)]
    async fn lookups_that_hang_are_joined_by_others_up_to_a_limit_and_by_none_after_an_answer() {
        let (answers, asked, resolver) = scripted();
        let first = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.addresses("heir").await }
        });
        // Nothing asks meanwhile, and the clock of this test runs as fast as it can.
        for expected in 1..=MOST_LOOKUPS as usize {
            while asked.load(SeqCst) < expected {
                time::sleep(EVERY / 100).await;
            }
        }
        time::sleep(EVERY * 100).await;
        assert_eq!(asked.load(SeqCst), MOST_LOOKUPS as usize);
        // One gives up: that is not the last word while others hang, and another takes its place.
        answers.send(Vec::new()).unwrap();
        assert!(first.await.unwrap().is_err());
        while asked.load(SeqCst) == MOST_LOOKUPS as usize {
            time::sleep(EVERY / 100).await;
        }
        let mut heard = resolver.answers();
        answers.send(vec![at(1)]).unwrap();
        assert_eq!(*heard.next().await.unwrap(), [at(1)]);
        time::sleep(EVERY * 100).await;
        assert_eq!(asked.load(SeqCst), MOST_LOOKUPS as usize + 1);
        assert!(!resolver.0.lock().is_asking);
    }

    #[tokio::test]
    async fn an_answer_that_comes_late_is_no_news() {
        let (_answers, _, resolver) = scripted();
        let mut heard = resolver.answers();
        resolver.0.note(3, Ok(Arc::from([at(3)])));
        resolver.0.note(2, Ok(Arc::from([at(2)])));
        assert_eq!(*heard.next().await.unwrap(), [at(3)]);
        assert_eq!(resolver.0.lock().known.as_deref(), Some(&[at(3)][..]));
        // One that comes after a failure is, whichever was asked for first.
        resolver.0.note(5, Err("no answer".into()));
        resolver.0.note(4, Ok(Arc::from([at(4)])));
        assert_eq!(*heard.next().await.unwrap(), [at(4)]);
    }

    #[tokio::test]
    async fn a_lookup_that_fails_is_followed_by_none() {
        let (answers, asked, resolver) = scripted();
        drop(answers);
        assert!(resolver.addresses("heir").await.is_err());
        assert!(!resolver.0.lock().is_asking);
        assert!(resolver.addresses("heir").await.is_err());
        assert_eq!(asked.load(SeqCst), 2);
    }
}
