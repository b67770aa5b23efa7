//! What is known of tables and columns, and whether a type holds all that another held.

use std::collections::BTreeMap;

use sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, BinaryLength, CharacterLength, ColumnOption,
    DataType, EnumMember, ExactNumberInfo, ObjectName, RenameTableNameKind, Statement,
};

/// Tables by name, in lower case and without their database.
#[derive(Debug, Default)]
pub(super) struct Tables(BTreeMap<String, Table>);

#[derive(Debug, Default, Clone)]
pub(super) struct Table {
    /// Made by a migration that is still to be applied.
    pub fresh: bool,
    pub columns: BTreeMap<String, Column>,
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub fresh: bool,
    pub data_type: DataType,
    pub not_null: bool,
    pub has_default: bool,
}

/// A name as it is compared.
pub(super) fn key(name: &ObjectName) -> String {
    let last = name.0.last().map(|part| part.to_string());
    plain(&last.unwrap_or_default())
}

pub(super) fn plain(name: &str) -> String {
    name.trim_matches('`').to_lowercase()
}

impl Column {
    pub(super) fn new<'a>(
        data_type: &DataType,
        options: impl IntoIterator<Item = &'a ColumnOption>,
        fresh: bool,
    ) -> Self {
        let mut column = Self {
            fresh,
            data_type: data_type.clone(),
            not_null: false,
            has_default: false,
        };
        for option in options {
            match option {
                ColumnOption::NotNull | ColumnOption::PrimaryKey(_) => column.not_null = true,
                ColumnOption::Default(_) | ColumnOption::Generated { .. } => {
                    column.has_default = true;
                }
                ColumnOption::DialectSpecific(tokens)
                    if tokens
                        .iter()
                        .any(|token| token.to_string().eq_ignore_ascii_case("AUTO_INCREMENT")) =>
                {
                    column.has_default = true;
                }
                _ => {}
            }
        }
        column
    }
}

impl Tables {
    pub(super) fn is_fresh(&self, table: &ObjectName) -> bool {
        self.0.get(&key(table)).is_some_and(|table| table.fresh)
    }

    pub(super) fn column(&self, table: &ObjectName, column: &str) -> Option<&Column> {
        self.0.get(&key(table))?.columns.get(&plain(column))
    }

    /// What a statement makes of the tables.
    pub(super) fn apply(&mut self, statement: &Statement, fresh: bool) {
        match statement {
            Statement::CreateTable(create) => {
                // Of a table that was there nothing is known to have changed.
                if create.if_not_exists && self.0.contains_key(&key(&create.name)) {
                    return;
                }
                let mut table = Table {
                    // It may be there without anybody having said so.
                    fresh: fresh && !create.if_not_exists,
                    columns: BTreeMap::new(),
                };
                for column in &create.columns {
                    let options = column.options.iter().map(|option| &option.option);
                    let new = Column::new(&column.data_type, options, fresh && table.fresh);
                    table.columns.insert(plain(&column.name.value), new);
                }
                self.0.insert(key(&create.name), table);
            }
            Statement::Drop { names, .. } => {
                for name in names {
                    self.0.remove(&key(name));
                }
            }
            Statement::RenameTable(renames) => {
                for rename in renames {
                    self.rename(&rename.old_name, &rename.new_name);
                }
            }
            Statement::AlterTable(alter) => {
                for operation in &alter.operations {
                    self.alter(&alter.name, operation, fresh);
                }
            }
            _ => {}
        }
    }

    fn rename(&mut self, old: &ObjectName, new: &ObjectName) {
        if let Some(table) = self.0.remove(&key(old)) {
            self.0.insert(key(new), table);
        }
    }

    fn alter(&mut self, name: &ObjectName, operation: &AlterTableOperation, fresh: bool) {
        if let AlterTableOperation::RenameTable { table_name } = operation {
            let (RenameTableNameKind::As(new) | RenameTableNameKind::To(new)) = table_name;
            self.rename(name, new);
            return;
        }
        let columns = &mut self.0.entry(key(name)).or_default().columns;
        match operation {
            AlterTableOperation::AddColumn {
                column_def,
                if_not_exists,
                ..
            } => {
                let options = column_def.options.iter().map(|option| &option.option);
                let new = Column::new(&column_def.data_type, options, fresh && !if_not_exists);
                columns.insert(plain(&column_def.name.value), new);
            }
            AlterTableOperation::DropColumn { column_names, .. } => {
                for name in column_names {
                    columns.remove(&plain(&name.value));
                }
            }
            AlterTableOperation::ModifyColumn {
                col_name,
                data_type,
                options,
                ..
            } => {
                let was = columns.get(&plain(&col_name.value));
                let was_fresh = was.is_some_and(|c| c.fresh);
                columns.insert(
                    plain(&col_name.value),
                    Column::new(data_type, options, was_fresh),
                );
            }
            AlterTableOperation::ChangeColumn {
                old_name,
                new_name,
                data_type,
                options,
                ..
            } => {
                let was = columns.remove(&plain(&old_name.value));
                let was_fresh = was.is_some_and(|c| c.fresh);
                columns.insert(
                    plain(&new_name.value),
                    Column::new(data_type, options, was_fresh),
                );
            }
            AlterTableOperation::RenameColumn {
                old_column_name,
                new_column_name,
            } => {
                if let Some(column) = columns.remove(&plain(&old_column_name.value)) {
                    columns.insert(plain(&new_column_name.value), column);
                }
            }
            AlterTableOperation::AlterColumn { column_name, op } => {
                if let Some(column) = columns.get_mut(&plain(&column_name.value)) {
                    match op {
                        AlterColumnOperation::SetDefault { .. } => column.has_default = true,
                        AlterColumnOperation::DropDefault => column.has_default = false,
                        AlterColumnOperation::SetNotNull => column.not_null = true,
                        AlterColumnOperation::DropNotNull => column.not_null = false,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether `new` holds every value that `old` held. Nothing: they are not of a kind that
/// is compared here.
pub(super) fn holds(new: &DataType, old: &DataType) -> Option<bool> {
    if new == old {
        return Some(true);
    }
    let (new, old) = (family(new)?, family(old)?);
    Some(match (new, old) {
        (
            Family::Whole {
                bits: n,
                unsigned: a,
            },
            Family::Whole {
                bits: o,
                unsigned: b,
            },
        ) => match (a, b) {
            (true, true) | (false, false) => n >= o,
            (false, true) => n > o,
            (true, false) => false,
        },
        (Family::Exact { whole: n, scale: a }, Family::Exact { whole: o, scale: b }) => {
            n >= o && a >= b
        }
        (Family::Floating(n), Family::Floating(o)) => n >= o,
        (Family::Text(n), Family::Text(o)) | (Family::Bytes(n), Family::Bytes(o)) => n >= o,
        (Family::Moment { kind: k, digits: n }, Family::Moment { kind: l, digits: o }) => {
            k == l && n >= o
        }
        // More members at the end: the numbers of the others stay.
        (Family::Members(n), Family::Members(o)) => n.starts_with(&o),
        _ => false,
    })
}

enum Family {
    Whole {
        bits: u8,
        unsigned: bool,
    },
    Exact {
        whole: u64,
        scale: i64,
    },
    Floating(u8),
    /// The most characters.
    Text(u64),
    /// The most bytes.
    Bytes(u64),
    Moment {
        kind: u8,
        digits: u64,
    },
    Members(Vec<String>),
}

const TINY: u64 = 255;
const MIDDLE: u64 = 65_535;
const MEDIUM: u64 = 16_777_215;
const LONG: u64 = 4_294_967_295;

fn family(data_type: &DataType) -> Option<Family> {
    use DataType as T;
    let whole = |bits, unsigned| Some(Family::Whole { bits, unsigned });
    // Character sets are not compared: a change of them is another clause.
    match data_type {
        T::TinyInt(_) | T::Bool | T::Boolean => whole(8, false),
        T::SmallInt(_) => whole(16, false),
        T::MediumInt(_) => whole(24, false),
        T::Int(_) | T::Integer(_) => whole(32, false),
        T::BigInt(_) => whole(64, false),
        T::TinyIntUnsigned(_) => whole(8, true),
        T::SmallIntUnsigned(_) => whole(16, true),
        T::MediumIntUnsigned(_) => whole(24, true),
        T::IntUnsigned(_) | T::IntegerUnsigned(_) => whole(32, true),
        T::BigIntUnsigned(_) => whole(64, true),
        T::Decimal(info) | T::Numeric(info) | T::Dec(info) => exact(info),
        T::Float(ExactNumberInfo::None) | T::Real => Some(Family::Floating(4)),
        T::Double(ExactNumberInfo::None) | T::DoublePrecision => Some(Family::Floating(8)),
        T::Char(length) | T::Character(length) => characters(length, 1),
        T::Varchar(Some(_)) | T::CharVarying(Some(_)) | T::CharacterVarying(Some(_)) => {
            let (T::Varchar(length) | T::CharVarying(length) | T::CharacterVarying(length)) =
                data_type
            else {
                return None;
            };
            characters(length, 1)
        }
        T::TinyText => Some(Family::Text(TINY)),
        T::Text => Some(Family::Text(MIDDLE)),
        T::MediumText => Some(Family::Text(MEDIUM)),
        T::LongText => Some(Family::Text(LONG)),
        T::Binary(length) => Some(Family::Bytes(length.unwrap_or(1))),
        T::Varbinary(Some(BinaryLength::IntegerLength { length })) => Some(Family::Bytes(*length)),
        T::TinyBlob => Some(Family::Bytes(TINY)),
        T::Blob(None) => Some(Family::Bytes(MIDDLE)),
        T::MediumBlob => Some(Family::Bytes(MEDIUM)),
        T::LongBlob => Some(Family::Bytes(LONG)),
        T::Date => moment(0, None),
        T::Time(digits, _) => moment(1, *digits),
        T::Datetime(digits) => moment(2, *digits),
        T::Timestamp(digits, _) => moment(3, *digits),
        T::Enum(members, _) => members
            .iter()
            .map(|member| match member {
                EnumMember::Name(name) => Some(name.clone()),
                EnumMember::NamedValue(..) => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Family::Members),
        T::Set(members) => Some(Family::Members(members.clone())),
        _ => None,
    }
}

fn moment(kind: u8, digits: Option<u64>) -> Option<Family> {
    Some(Family::Moment {
        kind,
        digits: digits.unwrap_or(0),
    })
}

fn exact(info: &ExactNumberInfo) -> Option<Family> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (10, 0),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let whole = precision.checked_sub(u64::try_from(scale).ok()?)?;
    Some(Family::Exact { whole, scale })
}

fn characters(length: &Option<CharacterLength>, default: u64) -> Option<Family> {
    match length {
        None => Some(Family::Text(default)),
        Some(CharacterLength::IntegerLength { length, .. }) => Some(Family::Text(*length)),
        Some(CharacterLength::Max) => None,
    }
}
