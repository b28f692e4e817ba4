//! CUDA graphs: what a thread asked of a GPU, asked again at once.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::null_mut;

use super::{check, ffi};
use crate::failure::Result;

/// Memory for what graphs compute in between. Graphs that share it must never run at once.
#[derive(Debug, Clone, Copy)]
pub struct Pool([u64; 2]);

impl Pool {
    /// One that no graph has yet.
    ///
    /// # Errors
    /// Without CUDA.
    pub fn new() -> Result<Pool> {
        let mut pool = [0; 2];
        // SAFETY: a place for two numbers.
        check(unsafe { ffi::cnx_graph_pool(pool.as_mut_ptr()) })?;
        Ok(Pool(pool))
    }
}

/// A capture under way: while it lives, this thread's stream collects work instead of doing it. Nothing may be read meanwhile.
#[derive(Debug)]
pub struct Capture {
    graph: *mut c_void,
    /// It is about this thread.
    _here: PhantomData<*const ()>,
}

impl Capture {
    /// From now on. The thread must be in a stream of its own.
    ///
    /// # Errors
    /// Without CUDA; when the stream cannot be captured.
    pub fn begin(pool: Pool) -> Result<Capture> {
        let mut graph = null_mut();
        // SAFETY: two numbers and a place for a pointer.
        check(unsafe { ffi::cnx_graph_begin(pool.0.as_ptr(), &raw mut graph) })?;
        Ok(Capture { graph, _here: PhantomData })
    }

    /// The graph of all that was asked for since it began.
    ///
    /// # Errors
    /// When something of it cannot be captured.
    pub fn end(mut self) -> Result<Graph> {
        let graph = Graph(std::mem::replace(&mut self.graph, null_mut()));
        // SAFETY: the graph is the shim's and lives, and its capture is under way.
        check(unsafe { ffi::cnx_graph_end(graph.0) })?;
        Ok(graph)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if !self.graph.is_null() {
            // SAFETY: as in `end`. Whoever gave up has an error already, of which this one follows.
            let _ = unsafe { ffi::cnx_graph_end(self.graph) };
            // SAFETY: the shim made it, and nobody has it after this.
            unsafe { ffi::cnx_graph_free(self.graph) }
        }
    }
}

/// What was captured. All that it reads and writes must live as long as it.
#[derive(Debug)]
pub struct Graph(*mut c_void);

impl Graph {
    /// Asks the GPU for all of it again, in this thread's stream.
    ///
    /// # Errors
    /// When the device failed.
    pub fn replay(&self) -> Result<()> {
        // SAFETY: the graph is the shim's, lives, and was captured to its end.
        check(unsafe { ffi::cnx_graph_replay(self.0) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the shim made it, and nobody has it after this.
        unsafe { ffi::cnx_graph_free(self.0) }
    }
}
