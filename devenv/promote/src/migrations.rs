//! Which SQL statements the version that still runs would not survive.
//!
//! A migration runs before the first step, while the old version serves all requests, and
//! a rollback leaves the schema as it is. So it may only *expand*: what exists stays
//! readable and writable by who knows nothing of the change. To *contract* (drop, rename,
//! tighten) is for a later release, once nobody uses the old form.
//!
//! Statements are parsed, by the grammar of MySQL. What can't be parsed, or depends on what
//! is not known here, is [`Kind::CantTell`], which needs consent just as
//! [`Kind::Destructive`] does. Literals of a statement are never shown.

mod columns;
mod rules;
mod statements;

use std::fmt;

use serde::Serialize;

use columns::Tables;
use statements::Piece;

/// What a statement is, as far as it needs consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It takes something away that the running version, or a rollback, may need.
    Destructive,
    /// Nobody knows.
    CantTell,
}

/// A statement that needs consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// As it was given.
    pub file: String,
    /// Where the statement begins, from 1.
    pub line: u64,
    /// What it is.
    pub kind: Kind,
    /// Its beginning, in one line, without literals.
    pub statement: String,
    /// What it takes away, or why nobody knows.
    pub why: String,
    /// What to do.
    pub instead: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            kind,
            statement,
            why,
            instead,
        } = self;
        let kind = match kind {
            Kind::Destructive => "destructive",
            Kind::CantTell => "can't be judged",
        };
        write!(f, "{file}:{line}: {kind}: {statement}: {why}; {instead}")
    }
}

/// Judges migrations in their order, and remembers what they make of the tables.
///
/// What a pending migration has made itself holds no data and is used by nobody, so it may
/// be dropped and changed by the next one.
#[derive(Debug, Default)]
pub struct Checker {
    tables: Tables,
}

impl Checker {
    /// One that knows no table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a migration that has been applied: what columns are like now says whether
    /// a change narrows them. What can't be parsed is not known.
    pub fn learn(&mut self, sql: &str) {
        for piece in statements::split(sql) {
            if let Ok(statement) = &piece.parsed {
                self.tables.apply(statement, false);
            }
        }
    }

    /// Judges a migration that is to be applied, and takes it in.
    pub fn check(&mut self, file: &str, sql: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        for piece in statements::split(sql) {
            let Piece {
                line,
                shown,
                parsed,
            } = piece;
            let mut add = |kind, why: String, instead: String| {
                found.push(Finding {
                    file: file.to_owned(),
                    line,
                    kind,
                    statement: shown.clone(),
                    why,
                    instead,
                });
            };
            match parsed {
                Ok(statement) => {
                    for rules::Objection { kind, why, instead } in
                        rules::objections(&statement, &self.tables)
                    {
                        add(kind, why, instead);
                    }
                    self.tables.apply(&statement, true);
                }
                Err(why) => add(
                    Kind::CantTell,
                    why,
                    "look at it yourself, and say that it may run".to_owned(),
                ),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
