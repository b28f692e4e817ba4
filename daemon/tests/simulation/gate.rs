//! Holds the store's writer up until the world says that it commits, and whether the coordinator dies of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use cnx_daemon::store::{CommitPoint, Trap};

/// Between the world and the thread that writes.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The caller that is being driven handed in a change.
    queued: bool,
    driver: Option<Waker>,
    /// The next group may go on, and dies at this point of it.
    opened: Option<Option<CommitPoint>>,
    /// It did.
    done: bool,
    /// The process is dead.
    dead: bool,
}

impl Gate {
    /// The trap for a store.
    pub fn trap(self: &Arc<Gate>) -> Trap {
        let gate = Arc::clone(self);
        Trap::new(move |point| gate.reached(point)).timeless()
    }

    fn reached(&self, point: CommitPoint) -> bool {
        let mut state = self.state();
        match point {
            CommitPoint::Queued => {
                state.queued = true;
                if let Some(driver) = state.driver.take() {
                    driver.wake();
                }
                false
            }
            CommitPoint::Begin => {
                while state.opened.is_none() && !state.dead {
                    state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.dead
            }
            CommitPoint::Before | CommitPoint::After => {
                let dies = state.opened == Some(Some(point));
                if dies || point == CommitPoint::After {
                    state.opened = None;
                    state.done = true;
                    self.moved.notify_all();
                }
                dies
            }
        }
    }

    /// Whether what was just polled waits for a commit now; if not, `driver` is woken once it does.
    pub fn took_in(&self, driver: &Waker) -> bool {
        let mut state = self.state();
        state.driver = Some(driver.clone());
        std::mem::take(&mut state.queued)
    }

    /// Lets everything that waits commit, and waits until it has, or died.
    pub fn commit(&self, dies: Option<CommitPoint>) {
        let mut state = self.state();
        state.opened = Some(dies);
        state.done = false;
        self.moved.notify_all();
        while !state.done {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The process dies: what waits will not commit.
    pub fn die(&self) {
        self.state().dead = true;
        self.moved.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
