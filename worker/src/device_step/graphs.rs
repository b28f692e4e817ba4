//! Steps as CUDA graphs: asked of the GPU operation by operation the first time, captured the second, replayed from then on.

use std::collections::{BTreeMap, VecDeque};

use tch::Device;

use crate::failure::Result;
use crate::native::{Capture, Event, Graph, OwnStream, Pool};

/// Steps that the GPU may be behind: enough that it never waits, few enough that who stops a training need not.
const AHEAD: usize = 8;

/// What tells one sequence of operations from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Whether the group lasso is part of it.
    pub lasso: bool,
    /// The images of the step.
    pub images: usize,
}

/// The graphs of a training's steps. While they live, this thread works in a stream of its own.
#[derive(Debug)]
pub struct Graphs {
    device: Device,
    /// None yet of kinds that were seen once: libraries set themselves up in a first run, and that cannot be captured.
    graphs: BTreeMap<Kind, Option<Graph>>,
    pool: Pool,
    /// The ends of the last steps, the oldest first.
    ends: VecDeque<Event>,
    _stream: OwnStream,
}

impl Graphs {
    /// None yet.
    ///
    /// # Errors
    /// When there is no such GPU.
    pub fn new(device: Device) -> Result<Graphs> {
        let stream = OwnStream::enter(device)?;
        let (graphs, ends) = (BTreeMap::new(), VecDeque::new());
        Ok(Graphs { device, graphs, pool: Pool::new()?, ends, _stream: stream })
    }

    /// A step of a kind; `compute` asks for it operation by operation, and must always ask for the same.
    ///
    /// # Errors
    /// When the device failed.
    pub fn step(&mut self, kind: Kind, mut compute: impl FnMut() -> Result<()>) -> Result<()> {
        match self.graphs.get(&kind) {
            Some(Some(graph)) => graph.replay()?,
            Some(None) => {
                let capture = Capture::begin(self.pool)?;
                compute()?;
                let graph = capture.end()?;
                graph.replay()?;
                self.graphs.insert(kind, Some(graph));
            }
            None => {
                // Condensing is over for good: those of before are not needed again, nor is their memory.
                if self.graphs.keys().any(|other| other.lasso != kind.lasso) {
                    self.graphs.clear();
                    self.pool = Pool::new()?;
                }
                compute()?;
                self.graphs.insert(kind, None);
            }
        }
        self.stay_close()
    }

    fn stay_close(&mut self) -> Result<()> {
        let oldest = if self.ends.len() < AHEAD { None } else { self.ends.pop_front() };
        let mut end = match oldest {
            Some(oldest) => {
                oldest.wait()?;
                oldest
            }
            None => Event::new(self.device)?,
        };
        end.record()?;
        self.ends.push_back(end);
        Ok(())
    }
}
