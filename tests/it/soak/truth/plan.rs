//! What is done, in an order that a seed decides.

use beamline_sidecar::store::Level;

/// One operation of the client.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Get(usize),
    Put(usize),
    Delete(usize),
    /// The list of this policy's tenant.
    List(usize),
}

/// One thing that goes wrong, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// HEIR answers 500 through the proxy; meanwhile another client writes to the store past the sidecar.
    Errors(u64),
    /// The store is killed; a copy of it is kept while it is away.
    StoreKilled(u64),
    /// The store is stopped with SIGSTOP and goes on with SIGCONT.
    StorePaused(u64),
    /// The store is killed, and comes back with its last copy.
    StoreRestored(u64),
    SidecarKilled(u64),
    /// While HEIR answers 500, so that it leaves writes in the journal.
    SidecarKilledWithQueue(u64),
}

/// The size of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// What the store can do.
    pub(super) level: Level,
    pub(super) seed: u64,
    pub(super) tenants: usize,
    pub(super) policies: usize,
    /// How long there are faults; a short run has one of each kind.
    pub(super) seconds: Option<u64>,
}

impl Scale {
    /// `BEAMLINE_SOAK_SECONDS` makes a long run, `BEAMLINE_SOAK_SEED` repeats one.
    pub(super) fn from_environment(level: Level) -> Self {
        let environment = beamline_sidecar::config::environment();
        let number = |name: &str| environment.get(name)?.parse::<u64>().ok();
        let seconds = number("BEAMLINE_SOAK_SECONDS");
        let (tenants, policies) = if seconds.is_some() {
            (500, 10_000)
        } else {
            (100, 1_500)
        };
        Self {
            level,
            seed: number("BEAMLINE_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..)),
            tenants,
            policies,
            seconds,
        }
    }
}

/// The faults of a short run.
pub(super) const SHORT: [Fault; 7] = [
    Fault::Errors(900),
    // From the copy that was made before the first write, at which the sidecar had begun.
    Fault::StoreRestored(300),
    Fault::StoreKilled(500),
    Fault::StorePaused(1_300),
    Fault::StoreRestored(200),
    Fault::SidecarKilledWithQueue(700),
    Fault::StoreRestored(300),
];

impl Fault {
    /// A HEIR without revisions cannot be noticed to have gone back.
    pub(super) fn can_be_at(self, level: Level) -> bool {
        level.has_validators() || !matches!(self, Self::StoreRestored(_))
    }
}

pub(super) fn fault(random: &mut fastrand::Rng, level: Level) -> Fault {
    loop {
        let milliseconds = random.u64(50..2_500);
        let fault = match random.u8(0..12) {
            0..2 => Fault::Errors(milliseconds),
            2..4 => Fault::StoreKilled(milliseconds),
            4..7 => Fault::StorePaused(milliseconds),
            7..10 => Fault::StoreRestored(milliseconds),
            10 => Fault::SidecarKilled(milliseconds / 4),
            _ => Fault::SidecarKilledWithQueue(milliseconds),
        };
        if fault.can_be_at(level) {
            return fault;
        }
    }
}

/// Half of all operations are on a few policies, so that writes meet.
pub(super) fn operation(random: &mut fastrand::Rng, policies: usize) -> Operation {
    let which = if random.bool() {
        random.usize(..policies.min(60))
    } else {
        random.usize(..policies)
    };
    match random.u8(0..100) {
        0..55 => Operation::Get(which),
        55..83 => Operation::Put(which),
        83..93 => Operation::Delete(which),
        _ => Operation::List(which),
    }
}
