//! Who is meant: IDs, names, sweep names and "last", all together.

use std::collections::HashSet;

use sqlx::SqlitePool;

use super::{Result, Store, StoreError, unsigned};

/// Which experiments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Every one.
    All,
    /// These, ascending, each once.
    Ids(Vec<u64>),
}

impl Selection {
    /// For `id IN (SELECT value FROM json_each(?))`: one bound value, however many there are.
    pub(super) fn json(ids: &[u64]) -> String {
        serde_json::Value::from(ids).to_string()
    }
}

/// Names considered for "did you mean", of the newest experiments and sweeps.
const NEAR_NAMES: i64 = 1000;

impl Store {
    /// Finds what selectors name; none of them selects everything.
    ///
    /// # Errors
    /// When a selector names nothing; the message says which, and what is near.
    pub async fn select(&self, selectors: &[String]) -> Result<Selection> {
        if selectors.is_empty() {
            return Ok(Selection::All);
        }
        // Thousands of IDs at once are common (`--wait` on a sweep): one query for all of them.
        let (numbers, names): (Vec<&String>, Vec<&String>) = selectors.iter().partition(|s| is_number(s));
        let mut ids = known(&self.readers, &numbers).await?;
        if let Some(missing) = numbers.iter().find(|number| !ids.contains(&id(number))) {
            return Err(StoreError::NotFound(self.unknown(missing).await?));
        }
        let mut ids: Vec<u64> = ids.drain().collect();
        for selector in names {
            let found = find(&self.readers, selector).await?;
            if found.is_empty() {
                return Err(StoreError::NotFound(self.unknown(selector).await?));
            }
            ids.extend(found);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(Selection::Ids(ids))
    }

    /// The one experiment that a selector means where only one can be shown: of several, the newest that runs, else
    /// the newest.
    ///
    /// # Errors
    /// When the selector names nothing.
    pub async fn select_one(&self, selector: &str) -> Result<u64> {
        let selectors = [if selector.is_empty() { "last".to_owned() } else { selector.to_owned() }];
        let Selection::Ids(ids) = self.select(&selectors).await? else { return Ok(0) };
        if let [id] = ids[..] {
            return Ok(id);
        }
        let id: i64 = sqlx::query_scalar(
            "SELECT id FROM experiments WHERE id IN (SELECT value FROM json_each(?))
             ORDER BY state = 'running' DESC, id DESC LIMIT 1",
        )
        .bind(Selection::json(&ids))
        .fetch_one(&self.readers)
        .await?;
        Ok(unsigned(Some(id)))
    }

    async fn unknown(&self, selector: &str) -> Result<String> {
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT max(id) FROM experiments").fetch_one(&self.readers).await?;
        let Some(newest) = newest else {
            return Ok(format!("there is no experiment {selector:?}: nothing was submitted yet"));
        };
        if is_number(selector) {
            return Ok(format!("there is no experiment {selector}; the newest is {newest}"));
        }
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM (SELECT name FROM experiments ORDER BY id DESC LIMIT ?1)
             UNION SELECT name FROM (SELECT name FROM sweeps ORDER BY id DESC LIMIT ?1)",
        )
        .bind(NEAR_NAMES)
        .fetch_all(&self.readers)
        .await?;
        let near = cnx_proto::problems::suggestion(selector, names.iter().map(String::as_str));
        Ok(format!(
            "there is no experiment or sweep {selector:?}{near} (an ID, a name, a sweep's name, or last)"
        ))
    }
}

/// Names never read as IDs (`cnx_proto::validate::is_name`).
fn is_number(selector: &str) -> bool {
    !selector.is_empty() && selector.chars().all(|c| c.is_ascii_digit())
}

/// Beyond the numbers that there are: none's.
fn id(number: &str) -> u64 {
    number.parse().unwrap_or(u64::MAX)
}

/// Those of these IDs that there are.
async fn known(readers: &SqlitePool, numbers: &[&String]) -> Result<HashSet<u64>> {
    let ids: Vec<u64> = numbers.iter().map(|number| id(number)).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let found: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM experiments WHERE id IN (SELECT value FROM json_each(?))")
            .bind(Selection::json(&ids))
            .fetch_all(readers)
            .await?;
    Ok(found.into_iter().map(|id| unsigned(Some(id))).collect())
}

async fn find(readers: &SqlitePool, selector: &str) -> Result<Vec<u64>> {
    let ids: Vec<i64> = if selector == "last" {
        sqlx::query_scalar("SELECT id FROM experiments ORDER BY id DESC LIMIT 1").fetch_all(readers).await?
    } else {
        sqlx::query_scalar(
            "SELECT id FROM experiments WHERE name = ?1
             UNION SELECT m.experiment FROM sweeps s JOIN sweep_members m ON m.sweep = s.id WHERE s.name = ?1",
        )
        .bind(selector)
        .fetch_all(readers)
        .await?
    };
    Ok(ids.into_iter().map(|id| unsigned(Some(id))).collect())
}
