//! Parquet tables, read with `cloze-data`.

use std::path::Path;

use cloze_data::corpus::ParquetColumns;

use serde_json::{Map, Value};

use super::columns::{Column, ColumnSelection, Row};
use super::json::Objects;
use crate::TaskError;
use crate::datasets::quoted_list;
use crate::task::FileRows;

pub(super) fn open(path: &Path) -> Result<ParquetColumns, TaskError> {
    ParquetColumns::open(path).map_err(|e| TaskError::data(path, e))
}

/// The names of the columns. Lists have the names that other programs show.
pub(super) fn names(file: &ParquetColumns) -> Vec<String> {
    names_with(file, |index| file.list_name(index))
}

/// The names of the columns; `list_name` gives the names of lists.
fn names_with(file: &ParquetColumns, list_name: impl Fn(usize) -> Option<String>) -> Vec<String> {
    let own = file.names().into_iter().enumerate();
    own.map(|(index, name)| list_name(index).unwrap_or(name)).collect()
}

/// The names of the numbers in a column, or in its lists, from the metadata of Hugging Face's `datasets`
/// (`ClassLabel`).
pub(super) fn class_names(file: &ParquetColumns, column: &str) -> Option<Vec<String>> {
    let metadata: Value = serde_json::from_str(file.metadata("huggingface")?).ok()?;
    let feature = &metadata["info"]["features"][column];
    let own = [feature, &feature["feature"], &feature[0]];
    let class_label = own.into_iter().find(|feature| feature["_type"] == "ClassLabel")?;
    serde_json::from_value(class_label["names"].clone()).ok()
}

/// The rows as objects with these columns: texts and lists. A column `choices.text` becomes the key `text` of the
/// object `choices`.
pub(super) fn objects(path: &Path, file: &ParquetColumns, keys: &[&str]) -> Result<Objects, TaskError> {
    let names = names(file);
    let is_selected = |name: &String| keys.contains(&name.split('.').next().unwrap_or_default());
    let selected = || names.iter().filter(|name| is_selected(name));
    let columns: Vec<Column> = selected().map(|name| Column::Name(name.clone().into())).collect();
    if columns.is_empty() {
        let problem = format!(
            "no column {}; the columns are {}",
            quoted_list(keys.iter().copied()),
            quoted_list(names.iter().map(String::as_str))
        );
        return Err(TaskError::file(path, problem));
    }
    let is_part =
        |name: &String, parent: &String| name.strip_prefix(parent.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let conflict = selected().find_map(|parent| Some((parent, selected().find(|name| is_part(name, parent))?)));
    if let Some((parent, child)) = conflict {
        let problem = format!("expected only one of the columns \"{parent}\" and \"{child}\", found both");
        return Err(TaskError::file(path, problem));
    }
    let rows = rows(&ColumnSelection { path, required: &[], optional: &columns, lists: &columns }, file)?;
    let is_list = |name: &str| (0..names.len()).any(|index| names[index] == name && file.list_name(index).is_some());
    let lists: Vec<bool> = selected().map(|name| is_list(name)).collect();
    let object = |row: Row| {
        let mut object = Map::new();
        for ((name, cell), is_list) in selected().zip(row.optional).zip(&lists) {
            let Some(cell) = cell else { continue };
            let value = if *is_list { serde_json::from_str(&cell).unwrap_or_default() } else { Value::from(cell) };
            match name.split_once('.') {
                Some((parent, child)) => {
                    let parent = object.entry(parent).or_insert_with(|| Value::Object(Map::new()));
                    parent.as_object_mut().map(|parent| parent.insert(child.to_owned(), value));
                }
                None => {
                    object.insert(name.clone(), value);
                }
            }
        }
        (row.line, object)
    };
    Ok(rows.into_iter().map(|row| row.map(object)).collect())
}

pub(super) fn rows(selection: &ColumnSelection<'_>, file: &ParquetColumns) -> Result<FileRows<Row>, TaskError> {
    // Columns that may be lists have the names that other programs show.
    let may_be_list = |name: &String| {
        selection.lists.iter().any(|column| matches!(column, Column::Name(known) if known.as_ref() == name))
    };
    let list_name = |index: usize| file.list_name(index).filter(may_be_list);
    let names = names_with(file, list_name);
    let (required, optional) = selection.find(&names)?;
    let read = |index: usize| {
        let read = if list_name(index).is_some() { file.read_lists(index) } else { file.read(index) };
        read.map_err(|e| TaskError::data(selection.path, e))
    };
    let mut columns = Vec::new();
    for index in required {
        columns.push(read(index)?);
    }
    let mut others = Vec::new();
    for index in optional {
        others.push(index.map(read).transpose()?);
    }
    // A damaged file may have columns of different lengths.
    let lengths = columns.iter().chain(others.iter().flatten()).map(Vec::len);
    let (least, most) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
    if least != most {
        let problem =
            format!("expected columns of the same length, found {least} and {most} rows; the file is damaged");
        return Err(TaskError::file(selection.path, problem));
    }
    let (mut columns, mut others): (Vec<_>, Vec<_>) = (
        columns.into_iter().map(Vec::into_iter).collect(),
        others.into_iter().map(|column| column.map(Vec::into_iter)).collect(),
    );
    let row = |line| {
        let cells: Vec<Option<String>> = columns.iter_mut().map(|column| column.next().flatten()).collect();
        let optional = others.iter_mut().map(|column| column.as_mut().and_then(Iterator::next).flatten()).collect();
        match cells.iter().zip(selection.required).find(|(cell, _)| cell.is_none()) {
            Some((_, column)) => {
                Err(TaskError::line(selection.path, line, format!("column {column}: expected a value, found null")))
            }
            None => Ok(Row { line, cells: cells.into_iter().flatten().collect(), optional }),
        }
    };
    Ok((1..=most).map(row).collect())
}
