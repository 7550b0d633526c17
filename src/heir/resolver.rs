//! The addresses of HEIR's name.
//!
//! A lookup has a thread of its own: a resolver that hangs holds up neither other blocking work nor the end of the process.
//! While it hangs or fails, the addresses that it gave last are used.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::{sync::watch, time};

/// How long a lookup is waited for where an earlier one has given addresses.
const PATIENCE: Duration = Duration::from_millis(500);

/// Another lookup is begun beside one that has taken so long: a resolver that is back answers it at once, and the old one
/// when it is asked again.
const SLOW: Duration = Duration::from_secs(2);

/// Lookups at one time.
const MOST_LOOKUPS: usize = 8;

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
    /// Lookups under way, and when the last of them began.
    under_way: usize,
    began: Option<Instant>,
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

    /// Begins a lookup, unless one is under way that has not taken long yet.
    fn begin(&self, host: &str) {
        let mut state = self.0.lock();
        let is_slow = state.began.is_none_or(|began| began.elapsed() >= SLOW);
        if state.under_way > 0 && !(is_slow && state.under_way < MOST_LOOKUPS) {
            return;
        }
        let under_way = UnderWay(self.0.clone());
        let host = host.to_owned();
        let work = move || {
            let found = match (under_way.0.look_up)(&host) {
                Ok(found) if found.is_empty() => Err("the name has no address".into()),
                Ok(found) => Ok(Arc::from(found)),
                Err(error) => Err(error.to_string().into()),
            };
            let shared = under_way.0.clone();
            drop(under_way);
            shared.note(found);
        };
        (state.under_way, state.began) = (state.under_way + 1, Some(Instant::now()));
        drop(state);
        let thread = std::thread::Builder::new().name("heir-name".into());
        if let Err(error) = thread.spawn(work) {
            self.0.note(Err(error.to_string().into()));
        }
    }

    /// What the next lookup that ends comes to.
    async fn look_up(&self, host: &str) -> Found {
        let mut found = self.0.found.subscribe();
        loop {
            self.begin(host);
            if time::timeout(SLOW, found.changed()).await.is_ok() {
                let found = found.borrow_and_update().clone();
                return found.unwrap_or_else(|| Err("there was no answer".into()));
            }
        }
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

    /// Whether the name has other addresses than this one now. A lookup that fails, or takes longer than this, says
    /// nothing.
    pub(super) async fn has_left(&self, host: &str, address: IpAddr, timeout: Duration) -> bool {
        match time::timeout(timeout, self.look_up(host)).await {
            Ok(Ok(found)) => found
                .iter()
                .all(|found| found.ip().to_canonical() != address.to_canonical()),
            Ok(Err(_)) | Err(_) => false,
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

    fn note(&self, found: Found) {
        if let Ok(found) = &found {
            self.lock().known = Some(found.clone());
        }
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
        // It hangs: what is known is used, and it is not asked once more beside that.
        for _ in 0..3 {
            assert_eq!(*resolver.addresses("heir").await.unwrap(), [at(1)]);
        }
        assert_eq!(asked.load(SeqCst), 2);
        answers.send(vec![at(2), at(3)]).unwrap();
        while resolver.0.lock().under_way > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
        drop(answers);
        assert_eq!(*resolver.addresses("heir").await.unwrap(), [at(2), at(3)]);
    }

    #[tokio::test]
    async fn without_an_answer_so_far_all_wait_for_the_same_one() {
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
        assert_eq!(asked.load(SeqCst), 1);
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

    #[tokio::test]
    async fn an_address_is_left_only_where_an_answer_says_so() {
        let (answers, _, resolver) = scripted();
        let left = async |last| {
            resolver
                .has_left("heir", at(last).ip(), Duration::from_millis(200))
                .await
        };
        answers.send(vec![at(1), at(2)]).unwrap();
        assert!(!left(2).await);
        answers.send(vec![at(3)]).unwrap();
        assert!(left(2).await);
        assert!(!left(2).await, "no answer in time");
        drop(answers);
        assert!(!left(2).await, "no answer at all");
    }
}
