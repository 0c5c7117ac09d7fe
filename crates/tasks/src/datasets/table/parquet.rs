//! Parquet by way of `cloze-data`.

use std::path::Path;

use cloze_data::corpus::ParquetColumns;

use super::columns::{Row, Wanted};
use crate::TaskError;

pub(super) fn open(path: &Path) -> Result<ParquetColumns, TaskError> {
    ParquetColumns::open(path).map_err(|e| TaskError::data(path, e))
}

pub(super) fn rows(wanted: &Wanted<'_>, file: &ParquetColumns) -> Result<Vec<Row>, TaskError> {
    let names = file.names();
    let (required, optional) = wanted.find(&names)?;
    let read = |index: usize| file.read(index).map_err(|e| TaskError::data(wanted.path, e));
    let mut columns = Vec::new();
    for index in required {
        columns.push(read(index)?);
    }
    let mut others = Vec::new();
    for index in optional {
        others.push(index.map(read).transpose()?);
    }
    // A damaged file may hold columns of different lengths.
    let lengths = columns.iter().chain(others.iter().flatten()).map(Vec::len);
    let (least, most) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
    if least != most {
        let problem = format!("has columns of {least} and of {most} rows; the file is damaged");
        return Err(TaskError::file(wanted.path, problem));
    }
    let row = |line| Row { line, cells: Vec::new(), optional: Vec::new() };
    let mut rows: Vec<Row> = (1..=most).map(row).collect();
    for (column, asked) in columns.into_iter().zip(wanted.required) {
        for (row, cell) in rows.iter_mut().zip(column) {
            let Some(cell) = cell else {
                let problem = format!("column {asked} is null, expected a value");
                return Err(TaskError::line(wanted.path, row.line, problem));
            };
            row.cells.push(cell);
        }
    }
    for column in others {
        match column {
            Some(column) => rows.iter_mut().zip(column).for_each(|(row, cell)| row.optional.push(cell)),
            None => rows.iter_mut().for_each(|row| row.optional.push(None)),
        }
    }
    Ok(rows)
}
