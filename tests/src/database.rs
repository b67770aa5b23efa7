//! The rows behind the acknowledgements.

use crate::loader::Ledger;
use sqlx::{Connection, MySqlConnection, Row};
use std::collections::{BTreeMap, BTreeSet};

/// Rows in `records`.
pub async fn count(url: &str) -> Result<u64, sqlx::Error> {
    let mut connection = MySqlConnection::connect(url).await?;
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM records")
        .fetch_one(&mut connection)
        .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Rows in `records` with an id above `after`, by API, and the highest id.
pub async fn by_api(url: &str, after: u64) -> Result<(BTreeMap<String, u64>, u64), sqlx::Error> {
    let mut connection = MySqlConnection::connect(url).await?;
    let rows = sqlx::query(
        "SELECT api, COUNT(*) AS n, CAST(MAX(id) AS SIGNED) AS last FROM records WHERE id > ? GROUP BY api",
    )
    .bind(after)
    .fetch_all(&mut connection)
    .await?;
    let mut counts = BTreeMap::new();
    let mut last = after;
    for row in rows {
        let n: i64 = row.try_get("n")?;
        let highest: i64 = row.try_get("last")?;
        counts.insert(row.try_get("api")?, u64::try_from(n).unwrap_or(0));
        last = last.max(u64::try_from(highest).unwrap_or(0));
    }
    Ok((counts, last))
}

/// What the ledger and the tables disagree about; empty when every
/// acknowledgement is exactly one row, and every row of these keys is one key's.
///
/// `before` is the number of rows before the loader began; nobody else may have
/// written since.
pub async fn disagreements(
    url: &str,
    prefix: &str,
    before: u64,
    ledger: &Ledger,
) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = MySqlConnection::connect(url).await?;
    let stored: BTreeSet<u64> =
        sqlx::query_scalar::<_, i64>("SELECT CAST(id AS SIGNED) FROM records")
            .fetch_all(&mut connection)
            .await?
            .into_iter()
            .filter_map(|id| u64::try_from(id).ok())
            .collect();
    let keys: BTreeMap<String, Vec<u64>> = sqlx::query(
        "SELECT CAST(`key` AS CHAR) AS k, CAST(ids AS CHAR) AS ids FROM idempotency WHERE `key` LIKE ?",
    )
    .bind(format!("{prefix}-%"))
    .fetch_all(&mut connection)
    .await?
    .into_iter()
    .map(|row| {
        let ids: String = row.try_get("ids")?;
        let ids = serde_json::from_str(&ids).unwrap_or_default();
        Ok((row.try_get("k")?, ids))
    })
    .collect::<Result<_, sqlx::Error>>()?;
    Ok(compare(before, &stored, &keys, ledger))
}

fn compare(
    before: u64,
    stored: &BTreeSet<u64>,
    keys: &BTreeMap<String, Vec<u64>>,
    ledger: &Ledger,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut owner: BTreeMap<u64, &str> = BTreeMap::new();
    for (key, (ids, _)) in &ledger.acknowledged {
        if ids.len() != 1 {
            found.push(format!(
                "{key}: one record was acknowledged with the ids {ids:?}"
            ));
        }
        for id in ids {
            if !stored.contains(id) {
                found.push(format!(
                    "{key}: acknowledged as row {id}, which is not there"
                ));
            }
            if let Some(other) = owner.insert(*id, key) {
                found.push(format!("row {id} was acknowledged to {other} and to {key}"));
            }
        }
        match keys.get(key) {
            None => found.push(format!(
                "{key}: acknowledged, and not in the table idempotency"
            )),
            Some(kept) if kept != ids => found.push(format!(
                "{key}: acknowledged as {ids:?}, and kept as {kept:?}"
            )),
            Some(_) => {}
        }
    }
    let ours: BTreeSet<&u64> = keys.values().flatten().collect();
    let new = (stored.len() as u64).saturating_sub(before);
    if new != ours.len() as u64 {
        found.push(format!(
            "{new} new rows, and {} of them belong to a key: the others were written twice or half",
            ours.len()
        ));
    }
    for key in keys.keys() {
        if !ledger.acknowledged.contains_key(key) && !ledger.unanswered.contains(key) {
            found.push(format!("{key}: in the table idempotency, and never sent"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(entries: &[(&str, u64)]) -> Ledger {
        Ledger {
            acknowledged: entries
                .iter()
                .map(|(key, id)| ((*key).to_owned(), (vec![*id], "api1".to_owned())))
                .collect(),
            ..Ledger::default()
        }
    }

    fn keys(entries: &[(&str, u64)]) -> BTreeMap<String, Vec<u64>> {
        entries
            .iter()
            .map(|(key, id)| ((*key).to_owned(), vec![*id]))
            .collect()
    }

    #[test]
    fn whole_books_agree() {
        let both = [("a", 7), ("b", 8)];
        assert!(compare(1, &[3, 7, 8].into(), &keys(&both), &ledger(&both)).is_empty());
        // Written, its 201 lost on the way, and not asked again: allowed.
        let mut books = ledger(&[("a", 7)]);
        books.unanswered.push("b".to_owned());
        assert!(compare(1, &[3, 7, 8].into(), &keys(&both), &books).is_empty());
    }

    #[test]
    fn a_lost_row_a_second_row_a_shared_row_and_a_stranger_are_each_found() {
        let both = [("a", 7), ("b", 8)];
        let lost = compare(0, &[7].into(), &keys(&[("a", 7)]), &ledger(&both));
        assert!(
            lost.iter()
                .any(|line| line.contains("row 8, which is not there")),
            "{lost:?}"
        );
        let second = compare(0, &[7, 8, 9].into(), &keys(&both), &ledger(&both));
        assert!(
            second.iter().any(|line| line.contains("written twice")),
            "{second:?}"
        );
        let shared = [("a", 7), ("b", 7)];
        let shared = compare(0, &[7].into(), &keys(&shared), &ledger(&shared));
        assert!(
            shared.iter().any(|line| line.contains("to a and to b")),
            "{shared:?}"
        );
        let stranger = compare(0, &[7, 8].into(), &keys(&both), &ledger(&[("a", 7)]));
        assert!(
            stranger.iter().any(|line| line.contains("never sent")),
            "{stranger:?}"
        );
    }
}
