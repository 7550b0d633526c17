//! The memory for bodies: of requests, from their first bytes until the work on them is done, and of lists, until they are
//! sent. It is bounded for all clients together, and no client may have more than half of it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::IntGauge;

use crate::failure::{ErrorCode, Failure};

/// Bytes of a body that are not counted: what every connection may have, and what spares most requests the lock.
pub const UNCOUNTED: usize = 8 << 10;

/// The bound, shared by every transport.
#[derive(Debug)]
pub struct BufferedBytes {
    most: usize,
    /// The most of one client. A body that is larger counts as one of this size, so that it fits where nothing else is.
    share: usize,
    held: Mutex<Held>,
    gauge: IntGauge,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    by_client: HashMap<Client, usize>,
}

/// The clients at one address. All clients of Unix sockets are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(Option<IpAddr>);

/// Memory of one body, given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    of: Arc<BufferedBytes>,
    client: Client,
    bytes: usize,
}

impl Client {
    /// The client at an address; `None` for a Unix socket. An IPv6 network of 64 bits is one client, because each of its
    /// hosts can take as many addresses as it likes.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address => address,
        }))
    }
}

impl BufferedBytes {
    /// `most` bytes at a time; `gauge` shows how many there are.
    pub fn new(most: usize, gauge: IntGauge) -> Self {
        Self {
            most,
            share: most.div_ceil(2),
            held: Mutex::default(),
            gauge,
        }
    }

    /// Room for a body, of no bytes yet.
    pub fn room(self: &Arc<Self>, client: Client) -> Room {
        Room {
            of: self.clone(),
            client,
            bytes: 0,
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, held: &Held) {
        self.gauge.set(i64::try_from(held.bytes).unwrap_or(i64::MAX));
    }
}

impl Room {
    /// Makes room for so many bytes in all.
    ///
    /// # Errors
    /// `overloaded` where all clients together, or this one, have too much already.
    pub fn grow(&mut self, to: usize) -> Result<(), Failure> {
        let more = to.min(self.of.share).saturating_sub(self.bytes);
        if to <= UNCOUNTED || more == 0 {
            return Ok(());
        }
        let mut held = self.of.held();
        let own = held.by_client.get(&self.client).copied().unwrap_or_default();
        if held.bytes + more > self.of.most || own + more > self.of.share {
            let message = "too many bytes of bodies are in memory already (limits.max_buffered_bytes)";
            return Err(Failure::new(ErrorCode::Overloaded, message).retry_after_seconds(1));
        }
        held.bytes += more;
        held.by_client.insert(self.client, own + more);
        self.bytes += more;
        self.of.show(&held);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.of.held();
        held.bytes = held.bytes.saturating_sub(self.bytes);
        if let Some(own) = held.by_client.get_mut(&self.client) {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                held.by_client.remove(&self.client);
            }
        }
        self.of.show(&held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn client(address: &str) -> Client {
        Client::at(Some(address.parse().unwrap()))
    }

    #[test]
    fn one_client_has_half_and_all_together_have_no_more_than_there_is() {
        let gauge = IntGauge::new("bytes", "bytes").unwrap();
        let all = Arc::new(BufferedBytes::new(100 * KIB, gauge.clone()));
        let (a, b, c) = (client("10.0.0.1"), client("10.0.0.2"), Client::at(None));
        let mut first = all.room(a);
        first.grow(30 * KIB).unwrap();
        first.grow(40 * KIB).unwrap();
        let mut second = all.room(a);
        let refused = second.grow(11 * KIB).unwrap_err();
        assert_eq!(
            (refused.code, refused.retry_after_seconds),
            (ErrorCode::Overloaded, Some(1))
        );
        second.grow(10 * KIB).unwrap();
        let mut third = all.room(b);
        third.grow(45 * KIB).unwrap();
        assert!(all.room(c).grow(9 * KIB).is_err(), "there are five left");
        assert_eq!(gauge.get(), 95 << 10);
        drop((first, second, third));
        assert_eq!(gauge.get(), 0);
        assert!(all.held().by_client.is_empty());
        // What is larger than a share has a share.
        let mut large = all.room(a);
        large.grow(1_000 * KIB).unwrap();
        assert_eq!(gauge.get(), 50 << 10);
        all.room(b).grow(50 * KIB).unwrap();
    }

    #[test]
    fn small_bodies_are_not_counted() {
        let gauge = IntGauge::new("bytes", "bytes").unwrap();
        let all = Arc::new(BufferedBytes::new(1, gauge.clone()));
        all.room(Client::at(None)).grow(UNCOUNTED).unwrap();
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_network_of_one_host_is_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("::ffff:10.0.0.1"), client("::ffff:10.0.0.2"));
    }
}
