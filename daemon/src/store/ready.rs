//! What can run now: the dispatcher's question, answered from the indexes of what is ready alone.

use std::sync::Arc;

use sqlx::FromRow;

use super::{Result, Store, sql, unsigned};
use crate::lifecycle::MAX_BACKOFF_MS;
use crate::schedule::{Candidate, Demand, Place, Shares, Worker, fair_slots};

/// Looked at in one round; what lies beyond waits for its turn like everything else.
const MAX_DEMANDS: u32 = 1024;
const MAX_SWEEPS: u32 = 256;
const MAX_PRIORITIES: u32 = 64;

/// Waiting experiments that may preempt, looked at in one round.
const MAX_PREEMPTING: u32 = 64;

/// What makes an experiment ready, in the words of the partial indexes.
macro_rules! ready {
    () => {
        "state = 'queued' AND paused = 0 AND waits_for = 0"
    };
}

#[derive(FromRow)]
pub(super) struct DemandRow {
    id: i64,
    gpus: u32,
    memory_gib: u32,
    labels: String,
}

impl DemandRow {
    pub(super) fn demand(&self) -> Demand {
        demand(self.gpus, self.memory_gib, &self.labels)
    }
}

/// Of the columns of `demands`.
pub(super) fn demand(gpus: u32, memory_gib: u32, labels: &str) -> Demand {
    Demand { gpus, memory_gib, labels: labels.split_whitespace().map(str::to_owned).collect() }
}

/// From one demand to the next in the index, not from row to row.
pub(super) const DEMANDS: &str = concat!(
    "WITH RECURSIVE waiting (id) AS (
         SELECT * FROM (SELECT demand FROM experiments WHERE ",
    ready!(),
    " AND demand >= 0 ORDER BY demand LIMIT 1)
         UNION ALL
         SELECT (SELECT demand FROM experiments WHERE ",
    ready!(),
    " AND demand > waiting.id ORDER BY demand LIMIT 1)
         FROM waiting WHERE waiting.id IS NOT NULL LIMIT ?)
     SELECT d.id, d.gpus, d.memory_gib, d.labels FROM waiting JOIN demands d ON d.id = waiting.id"
);

/// The highest priority below ?2 (NULL: of all), and the sweeps that wait with it.
pub(super) const SWEEPS: &str = concat!(
    "WITH RECURSIVE top (priority) AS (
         SELECT priority FROM experiments WHERE ",
    ready!(),
    " AND demand = ?1 AND priority < ?2
         ORDER BY priority DESC LIMIT 1),
     waiting (share) AS (
         SELECT * FROM (SELECT share FROM experiments WHERE ",
    ready!(),
    " AND demand = ?1
             AND priority = (SELECT priority FROM top) ORDER BY share LIMIT 1)
         UNION ALL
         SELECT (SELECT share FROM experiments WHERE ",
    ready!(),
    " AND demand = ?1
             AND priority = (SELECT priority FROM top) AND share > waiting.share ORDER BY share LIMIT 1)
         FROM waiting WHERE waiting.share IS NOT NULL LIMIT ?3)
     SELECT top.priority, waiting.share FROM top, waiting WHERE waiting.share IS NOT NULL"
);

/// The oldest of each of the sweeps in ?4 whose back-off is over.
pub(super) const OLDEST: &str = concat!(
    "SELECT e.id, e.share, e.avoid FROM json_each(?4) AS sweep CROSS JOIN experiments e
     WHERE e.id IN (SELECT id FROM experiments WHERE ",
    ready!(),
    " AND demand = ?1 AND priority = ?2
         AND share = sweep.value AND (not_before_ms <= ?3 OR not_before_ms > ?6) ORDER BY id LIMIT ?5)"
);

/// How many go before ?4, counted up to ?5.
pub(super) const AHEAD: &str = concat!(
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM experiments WHERE ",
    ready!(),
    " AND demand = ?1
                 AND priority > ?2 LIMIT ?5)),
            (SELECT count(*) FROM (SELECT 1 FROM experiments WHERE ",
    ready!(),
    " AND demand = ?1
                 AND priority = ?2 AND share = ?3 AND id < ?4 LIMIT ?5))"
);

/// What waits with the right to preempt, in the order of the queue.
pub(super) const PREEMPTING: &str =
    "SELECT e.id, e.priority, e.share, d.id AS demand, d.gpus, d.memory_gib, d.labels
     FROM experiments e JOIN demands d ON d.id = e.demand
     WHERE e.state = 'queued' AND e.paused = 0 AND e.waits_for = 0 AND e.preempts = 1
         AND (e.not_before_ms <= ?1 OR e.not_before_ms > ?3)
     ORDER BY e.priority DESC, e.id LIMIT ?2";

impl Store {
    /// Of each demand that a free worker meets, at least as many ready experiments as it has slots, in the order of the
    /// queue; none while the queue is paused.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn candidates(
        &self,
        workers: &[Worker],
        shares: &Shares,
        now_ms: u64,
        at_most: u32,
    ) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        if self.queue_paused_since_ms().await?.is_some() {
            return Ok(found);
        }
        let demands: Vec<DemandRow> =
            sqlx::query_as(DEMANDS).bind(MAX_DEMANDS).fetch_all(&self.readers).await?;
        for row in demands {
            let demand = Arc::new(row.demand());
            let fitting = workers.iter().filter(|w| w.has_room_for(&demand)).map(|w| w.free_slots);
            let slots = fitting.fold(0, u32::saturating_add).min(at_most);
            let wanted = found.len() + slots as usize;
            let mut below = i64::from(i32::MAX) + 1;
            for _ in 0..MAX_PRIORITIES {
                if found.len() >= wanted {
                    break;
                }
                let waiting: Vec<(i64, i64)> = sqlx::query_as(SWEEPS)
                    .bind(row.id)
                    .bind(below)
                    .bind(MAX_SWEEPS)
                    .fetch_all(&self.readers)
                    .await?;
                let Some(&(priority, _)) = waiting.first() else { break };
                below = priority;
                let level = Level { demand: row.id, priority, now_ms };
                let sweeps: Vec<u64> = waiting.iter().map(|&(_, share)| unsigned(Some(share))).collect();
                self.of_level(&level, &demand, &sweeps, shares, wanted, &mut found).await?;
            }
        }
        Ok(found)
    }

    /// Adds ready experiments of one priority: of each sweep one more than its fair share could take, since equals go by
    /// age, and at least one, since what it has may wait for its back-off.
    async fn of_level(
        &self,
        level: &Level,
        demand: &Arc<Demand>,
        sweeps: &[u64],
        shares: &Shares,
        wanted: usize,
        found: &mut Vec<Candidate>,
    ) -> Result<()> {
        let missing = u32::try_from(wanted.saturating_sub(found.len())).unwrap_or(u32::MAX);
        let mut running = shares.clone();
        for candidate in found.iter() {
            *running.entry(candidate.share).or_default() += 1;
        }
        let running: Vec<u32> = sweeps.iter().map(|s| running.get(s).copied().unwrap_or(0)).collect();
        let fair = fair_slots(&running, missing);
        let (some, none): (Vec<_>, Vec<_>) = sweeps.iter().zip(&fair).partition(|(_, slots)| **slots > 0);
        let most = fair.iter().copied().max().unwrap_or(0);
        for (part, each) in [(some, most.saturating_add(1)), (none, 1)] {
            if part.is_empty() {
                continue;
            }
            let shares: Vec<u64> = part.iter().map(|(share, _)| **share).collect();
            let rows: Vec<(i64, i64, Option<String>)> = sqlx::query_as(OLDEST)
                .bind(level.demand)
                .bind(level.priority)
                .bind(sql(level.now_ms))
                .bind(serde_json::Value::from(shares).to_string())
                .bind(each)
                .bind(longest_backoff(level.now_ms))
                .fetch_all(&self.readers)
                .await?;
            found.extend(rows.into_iter().map(|(id, share, avoid)| Candidate {
                experiment: unsigned(Some(id)),
                priority: i32::try_from(level.priority).unwrap_or_default(),
                share: unsigned(Some(share)),
                demand: Arc::clone(demand),
                avoid,
            }));
        }
        Ok(())
    }

    /// What waits with the right to preempt, in the order of the queue; none while the queue is paused.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn preempting(&self, now_ms: u64) -> Result<Vec<Candidate>> {
        let rows: Vec<PreemptingRow> = sqlx::query_as(PREEMPTING)
            .bind(sql(now_ms))
            .bind(MAX_PREEMPTING)
            .bind(longest_backoff(now_ms))
            .fetch_all(&self.readers)
            .await?;
        if rows.is_empty() || self.queue_paused_since_ms().await?.is_some() {
            return Ok(Vec::new());
        }
        let candidate = |row: PreemptingRow| Candidate {
            experiment: unsigned(Some(row.id)),
            priority: row.priority,
            share: unsigned(Some(row.share)),
            demand: Arc::new(
                DemandRow { id: row.demand, gpus: row.gpus, memory_gib: row.memory_gib, labels: row.labels }
                    .demand(),
            ),
            avoid: None,
        };
        Ok(rows.into_iter().map(candidate).collect())
    }

    /// What goes before a ready experiment.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn place(&self, experiment: u64) -> Result<Place> {
        let (demand, priority, share): (i64, i64, i64) =
            sqlx::query_as("SELECT demand, priority, share FROM experiments WHERE id = ?")
                .bind(sql(experiment))
                .fetch_one(&self.readers)
                .await?;
        let (higher, before): (i64, i64) = sqlx::query_as(AHEAD)
            .bind(demand)
            .bind(priority)
            .bind(share)
            .bind(sql(experiment))
            .bind(sql(Place::MOST))
            .fetch_one(&self.readers)
            .await?;
        let waiting: Vec<(i64, i64)> = sqlx::query_as(SWEEPS)
            .bind(demand)
            .bind(priority + 1)
            .bind(MAX_SWEEPS)
            .fetch_all(&self.readers)
            .await?;
        let others = waiting.iter().filter(|&&(p, s)| p == priority && s != share).count();
        Ok(Place { higher: unsigned(Some(higher)), before: unsigned(Some(before)), sweeps: others as u64 })
    }

    /// When the next back-off ends; perhaps only of those that may preempt.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next_backoff_ms(&self, now_ms: u64, preempting: bool) -> Result<Option<u64>> {
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT min(not_before_ms) FROM experiments
             WHERE state = 'queued' AND not_before_ms > 0 AND not_before_ms > ?1 AND preempts >= ?2
                 AND not_before_ms <= ?3",
        )
        .bind(sql(now_ms))
        .bind(preempting)
        .bind(longest_backoff(now_ms))
        .fetch_one(&self.readers)
        .await?;
        Ok(next.map(|ms| unsigned(Some(ms))))
    }
}

/// A back-off that ends after this is none ([`crate::lifecycle::backs_off`], in SQL).
fn longest_backoff(now_ms: u64) -> i64 {
    sql(now_ms.saturating_add(MAX_BACKOFF_MS))
}

/// One priority of one demand.
struct Level {
    demand: i64,
    priority: i64,
    now_ms: u64,
}

#[derive(FromRow)]
struct PreemptingRow {
    id: i64,
    priority: i32,
    share: i64,
    demand: i64,
    gpus: u32,
    memory_gib: u32,
    labels: String,
}
