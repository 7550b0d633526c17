//! A proxy in front of a HEIR that counts what passes and does to it what a test says.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{Answer, Client};

/// One request as HEIR would see it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// Whether `METHOD path` begins like this.
    pub(crate) fn is(&self, beginning: &str) -> bool {
        format!("{} {}", self.method, self.path).starts_with(beginning)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What happens to one request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    None,
    /// HEIR gets it; its answer is lost.
    Lose,
    /// HEIR does not get it; the connection ends.
    Refuse,
    /// HEIR does not get it, and nothing is answered, for as long as the connection lasts.
    Silence,
    /// HEIR gets it at once; its answer arrives so much later.
    Late(Duration),
    /// HEIR gets it; its answer comes without this header.
    Without(&'static str),
    /// HEIR does not get it; this is answered: a status, header lines, a body.
    Say(u16, &'static [(&'static str, &'static str)], String),
    /// HEIR does not get it; the head of an answer comes, then this piece again and again with a pause between.
    Drip(&'static str, Duration),
}

type Rule = Box<dyn FnMut(&Seen) -> Fault + Send>;

pub(crate) struct Faulty {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    rule: Arc<Mutex<Rule>>,
    in_flight: Arc<AtomicUsize>,
    ends: watch::Sender<()>,
    running: JoinHandle<()>,
}

impl Faulty {
    /// Passes everything on to this HEIR.
    pub(crate) async fn start(heir: SocketAddr) -> Self {
        Self::start_at(heir, ([127, 0, 0, 1], 0).into()).await
    }

    /// As [`start`](Self::start), at this address.
    pub(crate) async fn start_at(heir: SocketAddr, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Fault::None)));
        let in_flight = Arc::new(AtomicUsize::new(0));
        let ends = watch::Sender::new(());
        let (sees, rules, flies, ended) = (seen.clone(), rule.clone(), in_flight.clone(), ends.clone());
        let running = tokio::spawn(async move {
            let client = Client::new(heir);
            while let Ok((stream, _)) = listener.accept().await {
                let (sees, rules, client) = (sees.clone(), rules.clone(), client.clone());
                let (flies, ended) = (flies.clone(), ended.clone());
                tokio::spawn(async move {
                    let service = service_fn(async |request| {
                        let _counted = InFlight::count(&flies);
                        let mut ended = ended.subscribe();
                        tokio::select! {
                            passed = pass(request, &client, &sees, &rules) => passed,
                            _ = ended.changed() => Err(Ends),
                        }
                    });
                    // Faults end connections in the middle of an answer.
                    let _ended = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            rule,
            in_flight,
            ends,
            running,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub(crate) fn rule(&self, rule: impl FnMut(&Seen) -> Fault + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// Ends the connections of all requests that are under way.
    pub(crate) fn cut(&self) {
        self.ends.send_replace(());
    }

    /// Whether every request so far has been answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.load(SeqCst) == 0
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests began like this.
    pub(crate) fn count(&self, beginning: &str) -> usize {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.is(beginning))
            .count()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// One request under way; counted until dropped, also when its client hangs up.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn count(flies: &'a AtomicUsize) -> Self {
        flies.fetch_add(1, SeqCst);
        Self(flies)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the connection is to end here")]
struct Ends;

async fn pass(
    request: Request<Incoming>,
    client: &Client,
    sees: &Mutex<Vec<Seen>>,
    rules: &Mutex<Rule>,
) -> Result<Response<Pieces>, Ends> {
    let (parts, body) = request.into_parts();
    let seen = Seen {
        method: parts.method,
        path: parts.uri.path_and_query().unwrap().to_string(),
        headers: parts.headers,
        body: body.collect().await.map_err(|_broken| Ends)?.to_bytes(),
    };
    sees.lock().unwrap().push(seen.clone());
    let fault = (rules.lock().unwrap())(&seen);
    match fault {
        Fault::None => Ok(whole(&forward(client, &seen).await?)),
        Fault::Lose => {
            forward(client, &seen).await?;
            Err(Ends)
        }
        Fault::Refuse => Err(Ends),
        Fault::Silence => std::future::pending().await,
        Fault::Late(pause) => {
            let answer = forward(client, &seen).await?;
            tokio::time::sleep(pause).await;
            Ok(whole(&answer))
        }
        Fault::Without(header) => {
            let mut answer = whole(&forward(client, &seen).await?);
            answer.headers_mut().remove(header);
            Ok(answer)
        }
        Fault::Say(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            Ok(response.body(Pieces::one(body.into())).unwrap())
        }
        Fault::Drip(piece, pause) => {
            let (drops, pieces) = mpsc::channel(1);
            tokio::spawn(async move {
                while drops.send(Bytes::from_static(piece.as_bytes())).await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
            });
            Ok(Response::new(Pieces(pieces)))
        }
    }
}

async fn forward(client: &Client, seen: &Seen) -> Result<Answer, Ends> {
    let headers: Vec<(&str, &str)> = seen
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length" | "connection"))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    let sent = client.send(seen.method.clone(), &seen.path, &headers, seen.body.clone());
    sent.await.map_err(|_away| Ends)
}

fn whole(answer: &Answer) -> Response<Pieces> {
    let mut response = Response::new(Pieces::one(answer.body.clone()));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    for framing in ["content-length", "transfer-encoding", "connection"] {
        response.headers_mut().remove(framing);
    }
    response
}

/// A body that comes in pieces.
struct Pieces(mpsc::Receiver<Bytes>);

impl Pieces {
    fn one(bytes: Bytes) -> Self {
        let (sender, pieces) = mpsc::channel(1);
        if !bytes.is_empty() {
            sender.try_send(bytes).unwrap();
        }
        Self(pieces)
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
