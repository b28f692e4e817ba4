//! Pages of a selection, by ID: whatever is selected, one answer is bounded, and the next page costs as much as the first.

use super::{Result, Selection, Store, unsigned};

/// Experiments on one page at most.
pub const PAGE: u32 = 1000;

/// Which part of a selection is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// The newest below this ID; 0: of all.
    Before(u64),
    /// The oldest above this ID.
    After(u64),
}

/// Part of a selection.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Ascending.
    pub ids: Vec<u64>,
    /// How many of the selection are beyond it, in the direction of the part.
    pub more: u64,
    /// Of these, those that are not final; of everything, known on the first page only.
    pub more_unfinished: u64,
}

impl Page {
    /// What of the page is to be told again later, because it did not fit.
    pub fn left_out(&mut self, experiments: u64, unfinished: u64) {
        self.more += experiments;
        self.more_unfinished += unfinished;
    }
}

impl Store {
    /// At most [`PAGE`] experiments of a selection, or `limit` where that is less and not 0.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn page(&self, selection: &Selection, part: Part, limit: u32) -> Result<Page> {
        let size = if limit == 0 { PAGE } else { PAGE.min(limit) };
        match selection {
            Selection::All => self.page_of_all(part, size).await,
            Selection::Ids(ids) => {
                let (ids, beyond) = cut(ids, part, size as usize);
                let more_unfinished = self.unfinished(beyond).await?;
                Ok(Page { ids: ids.to_vec(), more: beyond.len() as u64, more_unfinished })
            }
        }
    }

    async fn page_of_all(&self, part: Part, size: u32) -> Result<Page> {
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT max(id) FROM experiments").fetch_one(&self.readers).await?;
        let newest = unsigned(newest);
        // IDs have no gaps: no row is ever deleted, and what is taken back gives its IDs back.
        let (ids, more) = match part {
            Part::After(id) => {
                let last = newest.min(id.saturating_add(u64::from(size)));
                (id.saturating_add(1)..last + 1, newest - last.max(id.min(newest)))
            }
            Part::Before(id) => {
                let end = if id == 0 { newest + 1 } else { id.min(newest + 1) };
                let first = end.saturating_sub(u64::from(size)).max(1);
                (first..end, first - 1)
            }
        };
        let mut page = Page { ids: ids.collect(), more, more_unfinished: 0 };
        if more > 0 && matches!(part, Part::Before(0)) {
            let all: i64 = sqlx::query_scalar(
                "SELECT coalesce(sum(count), 0) FROM state_counts
                 WHERE state NOT IN ('succeeded', 'failed', 'cancelled')",
            )
            .fetch_one(&self.readers)
            .await?;
            page.more_unfinished =
                unsigned(Some(all)).saturating_sub(self.unfinished(&page.ids).await?).min(more);
        }
        Ok(page)
    }

    /// How many of these are not final.
    async fn unfinished(&self, ids: &[u64]) -> Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM experiments WHERE id IN (SELECT value FROM json_each(?))
             AND state NOT IN ('succeeded', 'failed', 'cancelled')",
        )
        .bind(Selection::json(ids))
        .fetch_one(&self.readers)
        .await?;
        Ok(unsigned(Some(count)))
    }
}

/// A part of ascending IDs, and those beyond it.
fn cut(ids: &[u64], part: Part, size: usize) -> (&[u64], &[u64]) {
    match part {
        Part::After(after) => {
            let rest = &ids[ids.partition_point(|&id| id <= after)..];
            rest.split_at(size.min(rest.len()))
        }
        Part::Before(before) => {
            let rest = if before == 0 { ids } else { &ids[..ids.partition_point(|&id| id < before)] };
            let (beyond, page) = rest.split_at(rest.len().saturating_sub(size));
            (page, beyond)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_put_together_are_the_selection_either_way() {
        let ids: Vec<u64> = (1..=10).map(|n| n * n).collect();
        for size in 1..=11 {
            let (mut up, mut after) = (Vec::new(), 0);
            loop {
                let (page, beyond) = cut(&ids, Part::After(after), size);
                up.extend_from_slice(page);
                assert_eq!(up.len() + beyond.len(), ids.len());
                let Some(&last) = page.last() else { break };
                after = last;
            }
            let (mut down, mut before) = (Vec::new(), 0);
            loop {
                let (page, beyond) = cut(&ids, Part::Before(before), size);
                down.splice(0..0, page.iter().copied());
                assert_eq!(down.len() + beyond.len(), ids.len());
                match page.first() {
                    Some(&first) if first > ids[0] => before = first,
                    _ => break,
                }
            }
            assert_eq!((&up, &down), (&ids, &ids));
        }
    }
}
