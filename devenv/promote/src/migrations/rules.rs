//! What is held against a statement.

use sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, AssignmentTarget, BinaryOperator,
    ColumnOption, DataType, Expr, FromTable, Ident, ObjectName, ObjectType, SetExpr, Statement,
    TableConstraint, TableFactor, TableWithJoins, Update, Value,
};

use super::{
    Kind,
    columns::{Column, Tables, holds, plain},
};

/// What a statement takes away, or why nobody knows.
pub(super) struct Objection {
    pub kind: Kind,
    pub why: String,
    pub instead: String,
}

fn destructive(why: impl Into<String>, instead: impl Into<String>) -> Objection {
    Objection {
        kind: Kind::Destructive,
        why: why.into(),
        instead: instead.into(),
    }
}

fn cant_tell(why: impl Into<String>, instead: impl Into<String>) -> Objection {
    Objection {
        kind: Kind::CantTell,
        why: why.into(),
        instead: instead.into(),
    }
}

const LATER: &str = "do it in a release after the one that no longer uses it";

pub(super) fn objections(statement: &Statement, tables: &Tables) -> Vec<Objection> {
    match statement {
        Statement::CreateTable(create) if create.or_replace => vec![destructive(
            format!("replaces the table {} and all its rows", create.name),
            "make a table of another name",
        )],
        Statement::CreateTable(_)
        | Statement::CreateDatabase { .. }
        | Statement::CreateSchema { .. }
        | Statement::Insert(_)
            if !replaces(statement) =>
        {
            Vec::new()
        }
        Statement::Query(query) => match *query.body {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                vec![cant_tell(
                    "it changes rows behind a WITH, which is not looked into",
                    "write it without one",
                )]
            }
            _ => Vec::new(),
        },
        Statement::Set(_) if is_for_all(statement) => vec![cant_tell(
            "it sets a variable of the whole server",
            "set it for the session, or as a flag of the instance",
        )],
        Statement::Set(_)
        | Statement::Use(_)
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Savepoint { .. }
        | Statement::ReleaseSavepoint { .. }
        | Statement::UnlockTables
        | Statement::Analyze(_)
        | Statement::Grant(_)
        | Statement::CreateUser(_)
        | Statement::CreateRole(_) => Vec::new(),
        Statement::CreateView(view) if !view.or_replace && !view.or_alter => Vec::new(),
        Statement::CreateView(_) => vec![cant_tell(
            "replaces a view, and nobody knows here what it was",
            "make a view of another name",
        )],
        Statement::CreateIndex(index) if index.unique && !tables.is_fresh(&index.table_name) => {
            vec![tightens("makes values unique")]
        }
        Statement::CreateIndex(_) => Vec::new(),
        Statement::Insert(_) => vec![destructive(
            "REPLACE deletes the rows that are in its way",
            "use INSERT … ON DUPLICATE KEY UPDATE, or INSERT IGNORE",
        )],
        Statement::Drop {
            object_type,
            names,
            temporary,
            ..
        } => dropped(*object_type, names, *temporary, tables),
        Statement::DropTrigger(_)
        | Statement::DropProcedure { .. }
        | Statement::DropFunction(_) => vec![destructive(
            "drops what the running version may call or rely on",
            LATER,
        )],
        Statement::Truncate(truncate) => truncate
            .table_names
            .iter()
            .filter(|target| !tables.is_fresh(&target.name))
            .map(|target| {
                destructive(
                    format!("deletes all rows of {}", target.name),
                    "leave them, or delete those that nobody needs by a WHERE",
                )
            })
            .collect(),
        Statement::RenameTable(renames) => renames
            .iter()
            .filter(|rename| !tables.is_fresh(&rename.old_name))
            .map(|rename| renamed(&rename.old_name.to_string(), "table"))
            .collect(),
        Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
            let fresh = from.iter().all(|table| is_fresh(table, tables));
            let all = delete.selection.as_ref().is_none_or(is_always_true);
            if all && !fresh && delete.limit.is_none() {
                vec![destructive(
                    "deletes all rows",
                    "delete those that nobody needs by a WHERE",
                )]
            } else {
                Vec::new()
            }
        }
        Statement::Update(update) => updated(update, tables),
        Statement::AlterTable(alter) => altered(alter, tables),
        Statement::Revoke(_) => vec![destructive(
            "takes a right away that the running version may need",
            LATER,
        )],
        Statement::LockTables { .. } | Statement::Lock(_) => vec![cant_tell(
            "locks tables that the running version writes to, for nobody knows how long",
            "use online DDL, or move rows in batches",
        )],
        Statement::CreateTrigger(_)
        | Statement::CreateProcedure { .. }
        | Statement::CreateFunction(_)
        | Statement::Call(_)
        | Statement::Execute { .. }
        | Statement::Prepare { .. } => vec![cant_tell(
            "what a routine or a prepared statement does is not looked at",
            "look at it yourself, and say that it may run",
        )],
        _ => vec![cant_tell(
            "no rule is known here for a statement of this kind",
            "look at it yourself, and say that it may run",
        )],
    }
}

/// `SET GLOBAL`, `SET PERSIST` and their `@@` forms.
fn is_for_all(statement: &Statement) -> bool {
    let text = statement.to_string().to_ascii_uppercase();
    ["GLOBAL", "PERSIST"].iter().any(|scope| {
        text.starts_with(&format!("SET {scope}")) || text.contains(&format!("@@{scope}"))
    })
}

fn replaces(statement: &Statement) -> bool {
    matches!(statement, Statement::Insert(insert) if insert.replace_into || insert.overwrite)
}

fn tightens(what: &str) -> Objection {
    destructive(
        format!("{what}: the running version may write rows that are refused then"),
        "let the next version keep to it first, and say it in a release after that",
    )
}

fn renamed(name: &str, what: &str) -> Objection {
    destructive(
        format!("the running version still asks for the {what} {name}"),
        "add the new one, write to both, and drop the old one in a later release",
    )
}

fn dropped(
    object_type: ObjectType,
    names: &[ObjectName],
    temporary: bool,
    tables: &Tables,
) -> Vec<Objection> {
    // Rows and their meaning stay.
    if temporary || object_type == ObjectType::Index {
        return Vec::new();
    }
    names
        .iter()
        .filter(|name| !(object_type == ObjectType::Table && tables.is_fresh(name)))
        .map(|name| {
            let what = object_type.to_string().to_lowercase();
            destructive(format!("drops the {what} {name}"), LATER)
        })
        .collect()
}

fn is_fresh(table: &TableWithJoins, tables: &Tables) -> bool {
    matches!(&table.relation, TableFactor::Table { name, .. } if tables.is_fresh(name))
}

/// `TRUE`, `1`, `1 = 1` and the like.
fn is_always_true(expression: &Expr) -> bool {
    match expression {
        Expr::Nested(inner) => is_always_true(inner),
        Expr::Value(value) => match &value.value {
            Value::Boolean(value) => *value,
            Value::Number(digits, _) => digits.bytes().any(|b| b.is_ascii_digit() && b != b'0'),
            _ => false,
        },
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::Eq => left == right && matches!(**left, Expr::Value(_)),
            BinaryOperator::Or => is_always_true(left) || is_always_true(right),
            BinaryOperator::And => is_always_true(left) && is_always_true(right),
            _ => false,
        },
        _ => false,
    }
}

/// To fill a column that a pending migration has added is what expanding means.
fn updated(update: &Update, tables: &Tables) -> Vec<Objection> {
    let all = update.selection.as_ref().is_none_or(is_always_true);
    if !all || update.limit.is_some() || is_fresh(&update.table, tables) {
        return Vec::new();
    }
    let fresh = |name: &ObjectName| match &update.table.relation {
        TableFactor::Table { name: table, .. } => name
            .0
            .last()
            .and_then(|column| tables.column(table, &column.to_string()))
            .is_some_and(|column| column.fresh),
        _ => false,
    };
    let fills = update
        .assignments
        .iter()
        .all(|assignment| match &assignment.target {
            AssignmentTarget::ColumnName(name) => fresh(name),
            AssignmentTarget::Tuple(names) => names.iter().all(fresh),
        });
    if fills {
        return Vec::new();
    }
    vec![destructive(
        "overwrites a column in all rows",
        "say which rows by a WHERE, or fill a new column",
    )]
}

fn altered(alter: &AlterTable, tables: &Tables) -> Vec<Objection> {
    if tables.is_fresh(&alter.name) {
        return Vec::new();
    }
    let table = &alter.name;
    alter
        .operations
        .iter()
        .flat_map(|operation| operation_objections(table, operation, tables))
        .collect()
}

fn operation_objections(
    table: &ObjectName,
    operation: &AlterTableOperation,
    tables: &Tables,
) -> Vec<Objection> {
    use AlterTableOperation as Op;
    let fresh = |column: &Ident| {
        tables
            .column(table, &column.value)
            .is_some_and(|column| column.fresh)
    };
    match operation {
        Op::AddColumn { column_def, .. } => {
            let options: Vec<&ColumnOption> =
                column_def.options.iter().map(|o| &o.option).collect();
            added(
                &column_def.name,
                &Column::new(&column_def.data_type, options.iter().copied(), true),
            )
        }
        Op::DropColumn { column_names, .. } => column_names
            .iter()
            .filter(|name| !fresh(name))
            .map(|name| destructive(format!("drops the column {}", name.value), LATER))
            .collect(),
        Op::RenameColumn {
            old_column_name, ..
        } if fresh(old_column_name) => Vec::new(),
        Op::RenameColumn {
            old_column_name, ..
        } => vec![renamed(&old_column_name.value, "column")],
        Op::RenameTable { .. } => vec![renamed(&table.to_string(), "table")],
        Op::ModifyColumn {
            col_name,
            data_type,
            options,
            ..
        } => changed(table, col_name, data_type, options, tables),
        Op::ChangeColumn {
            old_name,
            new_name,
            data_type,
            options,
            ..
        } => {
            let mut out = changed(table, old_name, data_type, options, tables);
            if plain(&old_name.value) != plain(&new_name.value) && !fresh(old_name) {
                out.insert(0, renamed(&old_name.value, "column"));
            }
            out
        }
        Op::AlterColumn { column_name, .. } if fresh(column_name) => Vec::new(),
        Op::AlterColumn { column_name, op } => match op {
            AlterColumnOperation::SetDefault { .. } | AlterColumnOperation::DropNotNull => {
                Vec::new()
            }
            AlterColumnOperation::DropDefault => vec![destructive(
                format!(
                    "inserts of the running version may leave {} out",
                    column_name.value
                ),
                LATER,
            )],
            AlterColumnOperation::SetNotNull => vec![tightens("forbids NULL")],
            AlterColumnOperation::SetDataType { data_type, .. } => {
                changed(table, column_name, data_type, &[], tables)
            }
            _ => vec![unknown_operation()],
        },
        Op::AddConstraint { constraint, .. } => match constraint {
            TableConstraint::Index(_) => Vec::new(),
            TableConstraint::Unique(_) | TableConstraint::PrimaryKey(_) => {
                vec![tightens("makes values unique")]
            }
            TableConstraint::ForeignKey(_) => vec![tightens("wants another row to exist")],
            TableConstraint::Check(_) => vec![tightens("checks what is written")],
            other if other.to_string().to_uppercase().contains("UNIQUE") => {
                vec![tightens("makes values unique")]
            }
            // FULLTEXT and SPATIAL.
            _ => Vec::new(),
        },
        Op::DropPrimaryKey { .. } => vec![destructive(
            "without its primary key rows can be twice, and updates are slow",
            LATER,
        )],
        Op::DropPartitions { .. } => vec![destructive(
            "deletes the rows of a partition",
            "leave them until nobody reads them",
        )],
        // What was forbidden is allowed then.
        Op::DropConstraint { .. } | Op::DropForeignKey { .. } | Op::DropIndex { .. } => Vec::new(),
        Op::Algorithm { .. }
        | Op::Lock { .. }
        | Op::AutoIncrement { .. }
        | Op::AddPartitions { .. } => Vec::new(),
        _ => vec![unknown_operation()],
    }
}

fn unknown_operation() -> Objection {
    cant_tell(
        "no rule is known here for a change of this kind",
        "look at it yourself, and say that it may run",
    )
}

fn added(name: &Ident, column: &Column) -> Vec<Objection> {
    if column.not_null && !column.has_default {
        return vec![destructive(
            format!(
                "inserts of the running version leave {} out, and fail",
                name.value
            ),
            "give it a DEFAULT, or let it be NULL until a later release",
        )];
    }
    Vec::new()
}

fn changed(
    table: &ObjectName,
    name: &Ident,
    data_type: &DataType,
    options: &[ColumnOption],
    tables: &Tables,
) -> Vec<Objection> {
    let column = &name.value;
    let Some(old) = tables.column(table, column) else {
        return vec![cant_tell(
            format!("nobody knows here what {column} of {table} was"),
            "look whether it narrows, and say that it may run",
        )];
    };
    if old.fresh {
        return Vec::new();
    }
    let new = Column::new(data_type, options, false);
    let mut out = Vec::new();
    let types = format!("{} → {data_type}", old.data_type);
    match holds(data_type, &old.data_type) {
        Some(true) => {}
        Some(false) => out.push(destructive(
            format!("{column}: {types} does not hold all that was there"),
            "add a column of the new type, write to both, and drop the old one later",
        )),
        None => out.push(cant_tell(
            format!("{column}: whether {types} holds all that was there is not known here"),
            "look at it yourself, and say that it may run",
        )),
    }
    if new.not_null && !old.not_null {
        out.push(tightens(&format!("{column}: forbids NULL")));
    }
    if old.has_default && !new.has_default {
        out.push(destructive(
            format!(
                "{column}: loses its default, and inserts of the running version may leave it out"
            ),
            "repeat the DEFAULT (or AUTO_INCREMENT) in the statement",
        ));
    }
    out
}
