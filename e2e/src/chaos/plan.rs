//! What is to go wrong, and when: a pure function of the seed.
//!
//! Blows are dealt from decks. A deck holds every kind of blow at every victim at least once; it is shuffled, and when it
//! is used up another one is. So also a short run meets everything, and each seed in another order.

use std::fmt;
use std::time::Duration;

/// Workers of a run; the plan names them by number.
pub const AGENTS: usize = 2;

/// How long a silent worker keeps its lease. Long enough for its margin (a tenth) to be far more than a step of training.
pub const LEASE_TTL: Duration = Duration::from_secs(6);

/// How often leases are renewed.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// One that computes: of those that live, the one that `pick` falls on.
    Child {
        /// Any number; taken modulo the children there are.
        pick: u32,
    },
    /// An agent, by number.
    Agent(usize),
    /// The coordinator.
    Coordinator,
}

/// What an agent's way to the coordinator suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Connections are closed.
    Cut,
    /// Connections are reset.
    Reset,
    /// Connections are closed, and no new one is let through.
    Refuse,
    /// The coordinator's end is closed; the agent's stays open and silent.
    HalfOpen,
    /// Nothing comes through to the coordinator; it arrives afterwards.
    HoleUp,
    /// Nothing comes through to the agent; it arrives afterwards.
    HoleDown,
    /// Nothing comes through either way; it arrives afterwards.
    HoleBoth,
    /// Everything comes late.
    Delay,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL. Agents and the coordinator are started again after that time.
    Kill(Victim, Duration),
    /// SIGSTOP, and SIGCONT after that time.
    Stop(Victim, Duration),
    /// The way of that agent to the coordinator, for that time.
    Link(usize, Fault, Duration),
    /// Somebody pauses an experiment, and resumes it after that time.
    Pause {
        /// Any number; taken modulo the unfinished experiments.
        pick: u32,
        /// Until it is resumed.
        lasts: Duration,
    },
    /// Somebody cancels an experiment, and queues it anew once it is cancelled.
    Cancel {
        /// Any number; taken modulo the unfinished experiments.
        pick: u32,
    },
}

/// An act and what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blow {
    /// Epochs that the experiments together do after the blow before: bad luck must not come faster than training.
    pub after_epochs: u32,
    /// And then this long.
    pub then: Duration,
    /// What happens.
    pub act: Act,
}

/// Everything that goes wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub blows: Vec<Blow>,
}

impl Act {
    /// Whether it is a SIGKILL.
    pub fn kills(&self) -> bool {
        matches!(self, Act::Kill(..))
    }

    /// Victim and kind, as the report counts them.
    pub fn label(&self) -> (&'static str, String) {
        let victim = |victim: &Victim| match victim {
            Victim::Child { .. } => "child",
            Victim::Agent(_) => "agent",
            Victim::Coordinator => "coordinator",
        };
        let long = |lasts: &Duration| if *lasts > LEASE_TTL { ", longer than a lease" } else { "" };
        match self {
            Act::Kill(whom, down) => (victim(whom), format!("SIGKILL{}", long(down))),
            Act::Stop(whom, lasts) => (victim(whom), format!("SIGSTOP{}", long(lasts))),
            Act::Link(_, fault, lasts) => ("network", format!("{fault}{}", long(lasts))),
            Act::Pause { .. } => ("people", "pause, resume".to_owned()),
            Act::Cancel { .. } => ("people", "cancel, retry".to_owned()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Cut => "cut",
            Fault::Reset => "reset",
            Fault::Refuse => "refused",
            Fault::HalfOpen => "half open",
            Fault::HoleUp => "black hole up",
            Fault::HoleDown => "black hole down",
            Fault::HoleBoth => "black hole both ways",
            Fault::Delay => "delay",
        })
    }
}

impl Plan {
    /// The plan of a seed, with so many SIGKILLs; everything else comes beside them.
    pub fn new(seed: u64, kills: u32) -> Plan {
        let mut dealer = Dealer(fastrand::Rng::with_seed(seed));
        let mut blows = Vec::new();
        let mut left = kills;
        while left > 0 {
            let mut deck = dealer.deck();
            dealer.0.shuffle(&mut deck);
            for act in deck {
                if act.kills() {
                    if left == 0 {
                        continue;
                    }
                    left -= 1;
                }
                blows.push(dealer.blow(act));
            }
        }
        Plan { blows }
    }

    /// How many SIGKILLs it holds.
    pub fn kills(&self) -> usize {
        self.blows.iter().filter(|blow| blow.act.kills()).count()
    }
}

struct Dealer(fastrand::Rng);

impl Dealer {
    fn blow(&mut self, act: Act) -> Blow {
        let after_epochs = self.0.u32(0..=2);
        Blow { after_epochs, then: self.ms(0, 700), act }
    }

    /// Every kind of blow at every victim, the frequent ones several times.
    fn deck(&mut self) -> Vec<Act> {
        let mut deck = Vec::new();
        for _ in 0..5 {
            deck.push(Act::Kill(self.child(), Duration::ZERO));
        }
        for agent in 0..AGENTS {
            deck.push(Act::Kill(Victim::Agent(agent), self.ms(0, 1500)));
        }
        deck.push(Act::Kill(self.agent(), Duration::ZERO));
        deck.push(Act::Kill(self.agent(), self.longer_than_a_lease()));
        deck.push(Act::Kill(Victim::Coordinator, Duration::ZERO));
        deck.push(Act::Kill(Victim::Coordinator, self.ms(200, 2000)));
        deck.push(Act::Kill(Victim::Coordinator, self.longer_than_a_lease()));

        deck.push(Act::Stop(self.child(), self.ms(100, 2000)));
        deck.push(Act::Stop(self.child(), self.longer_than_a_lease()));
        deck.push(Act::Stop(self.agent(), self.ms(100, 2000)));
        deck.push(Act::Stop(self.agent(), self.longer_than_a_lease()));
        deck.push(Act::Stop(Victim::Coordinator, self.ms(100, 2000)));
        deck.push(Act::Stop(Victim::Coordinator, self.longer_than_a_lease()));

        for fault in [Fault::Cut, Fault::Reset] {
            deck.push(Act::Link(self.number(), fault, Duration::ZERO));
        }
        for fault in [Fault::HoleUp, Fault::HoleDown, Fault::HoleBoth] {
            let lasts = if self.0.bool() { self.ms(200, 3000) } else { self.longer_than_a_lease() };
            deck.push(Act::Link(self.number(), fault, lasts));
        }
        deck.push(Act::Link(self.number(), Fault::HoleBoth, self.longer_than_a_lease()));
        deck.push(Act::Link(self.number(), Fault::Refuse, self.ms(500, 4000)));
        deck.push(Act::Link(self.number(), Fault::HalfOpen, self.longer_than_a_lease()));
        deck.push(Act::Link(self.number(), Fault::Delay, self.ms(500, 4000)));

        deck.push(Act::Pause { pick: self.0.u32(..), lasts: self.ms(200, 3000) });
        deck.push(Act::Cancel { pick: self.0.u32(..) });
        deck
    }

    fn child(&mut self) -> Victim {
        Victim::Child { pick: self.0.u32(..) }
    }

    fn agent(&mut self) -> Victim {
        Victim::Agent(self.number())
    }

    fn number(&mut self) -> usize {
        self.0.usize(0..AGENTS)
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.0.u64(least..=most))
    }

    /// Up to twice as long: the lease has surely run out on both sides, and there is time for another attempt.
    fn longer_than_a_lease(&mut self) -> Duration {
        LEASE_TTL.mul_f64(1.2 + 0.8 * self.0.f64())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(Plan::new(7, 50), Plan::new(7, 50));
        assert_ne!(Plan::new(7, 50), Plan::new(8, 50));
    }

    #[test]
    fn a_plan_has_as_many_kills_as_were_asked_for() {
        for kills in [0, 1, 12, 200] {
            assert_eq!(Plan::new(1, kills).kills(), kills as usize);
        }
    }

    #[test]
    fn one_deck_meets_every_victim_with_every_kind() {
        for seed in 0..20 {
            let met: BTreeSet<_> = Plan::new(seed, 12).blows.iter().map(|blow| blow.act.label()).collect();
            for victim in ["child", "agent", "coordinator"] {
                for kind in ["SIGKILL", "SIGSTOP", "SIGSTOP, longer than a lease"] {
                    assert!(met.contains(&(victim, kind.to_owned())), "{victim} {kind} in {met:?}");
                }
            }
            assert!(met.iter().filter(|(victim, _)| *victim == "network").count() >= 8, "{met:?}");
            assert_eq!(met.iter().filter(|(victim, _)| *victim == "people").count(), 2);
        }
    }
}
