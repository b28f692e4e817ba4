//! The clock that leases are measured by on this host.

use std::time::Duration;

use cnx_proto::lease_clock::SinceBoot;

/// Now, on the clock that goes on while the machine sleeps: a suspended laptop must not believe in its old leases.
pub fn now() -> SinceBoot {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
