//! `cloze report`: writes a report of one or several runs as one HTML file.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::format;
use crate::help;
use crate::run_page::{self, Subject};
use crate::terminal::Terminal;

/// `cloze report RUN…`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&["cloze report runs/mini", "cloze report runs/mini runs/small --out compared.html"]),
    after_long_help = help::details(
        "RUN is the --out folder of `cloze pretrain`, `cloze finetune` (with one or several seeds) or `cloze sweep`. The \
         page shows curves, scores, settings and data in one self-contained file.\n\n\
         Several runs are compared: curves in common charts, final scores, and the settings that differ. They must be of one \
         kind, because the losses of pre-training and fine-tuning cannot be compared. A folder with several seeds counts as \
         one run with the mean of its seeds; a sweep counts with its best setting.",
        &[
            "cloze report runs/mini",
            "cloze report runs/mini runs/small --out compared.html",
            "cloze report runs/sst2-5-seeds",
        ],
    )
)]
pub struct Arguments {
    /// Run folders: the --out of `cloze pretrain`, `cloze finetune` or `cloze sweep`
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,

    /// Output file [default: report.html in the run folder; for several runs comparison.html in the current folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, _terminal: &Terminal) -> Result<()> {
    let subjects = run_page::open_all(&arguments.runs)?;
    let path = arguments.out.clone().unwrap_or_else(|| match &arguments.runs[..] {
        [only] => only.join("report.html"),
        _ => PathBuf::from("comparison.html"),
    });
    let html = run_page::html(&subjects);
    cloze_files::write(&path, html.as_bytes())?;
    let mut out = crate::output::stdout();
    if arguments.json {
        let names: Vec<&str> = subjects.iter().map(Subject::name).collect();
        let by_name = |values: Vec<String>| -> Map<String, Value> {
            names.iter().map(|name| (*name).to_owned()).zip(values.into_iter().map(Value::from)).collect()
        };
        let differences: Map<String, Value> =
            run_page::differences(&subjects).into_iter().map(|(key, values)| (key, by_name(values).into())).collect();
        let result = json!({
            "file": format::path(&path),
            "bytes": html.len(),
            "runs": subjects.iter().map(Subject::json).collect::<Vec<_>>(),
            "differences": differences,
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(out, "{} ({})", path.display(), format::bytes(html.len() as u64))?;
    }
    Ok(())
}
