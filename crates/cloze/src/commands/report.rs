//! `cloze report`: a run as one HTML file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::format;
use crate::run_page::Run;
use crate::terminal::Terminal;

/// `cloze report RUN_DIR`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cloze report runs/mini\n  cloze report runs/mini --out mini.html")]
pub struct Arguments {
    /// The run's folder: the --out of `cloze pretrain`
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,

    /// The file to write [default: RUN_DIR/report.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, _terminal: &Terminal) -> Result<()> {
    let path = arguments.out.clone().unwrap_or_else(|| arguments.run.join("report.html"));
    let run = read_run(&arguments.run)?;
    let html = run.html();
    fs::write(&path, &html).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let last = |key: &str| run.train.last().map_or(Value::Null, |record| record[key].clone());
        let result = serde_json::json!({
            "file": path,
            "bytes": html.len(),
            "steps": last("step"),
            "tokens": last("tokens"),
            "evaluations": run.evaluations.len(),
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(out, "{} ({})", path.display(), format::bytes(html.len() as u64))?;
    }
    Ok(())
}

/// Gathers what a run's folder tells.
pub fn read_run(dir: &Path) -> Result<Run> {
    let metrics = dir.join("metrics.jsonl");
    if !metrics.is_file() {
        bail!("{}: no metrics.jsonl; expected the folder of a `cloze pretrain` run (its --out)", dir.display());
    }
    let bytes = fs::read(&metrics).with_context(|| format!("cannot read {}", metrics.display()))?;
    let full = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let name = full.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let mut run = Run { name, recipe: fs::read_to_string(dir.join("recipe.toml")).ok(), ..Run::default() };
    run.read_metrics(&String::from_utf8_lossy(&bytes)).with_context(|| dir.display().to_string())?;
    run.corpus = corpus_report(dir, &run);
    Ok(run)
}

/// The shards' report: from the run's start record, else from the manifest of the folder that the recipe names,
/// if it is still there.
fn corpus_report(dir: &Path, run: &Run) -> Option<Value> {
    let start = run.starts.last();
    if let Some(report) = start.map(|start| &start["corpus"]).filter(|report| report.is_object()) {
        return Some(report.clone());
    }
    let named = start.and_then(|start| start["data"].as_str()).map(str::to_string).or_else(|| {
        let line = run.recipe.as_ref()?.lines().find_map(|line| line.trim().strip_prefix("data"))?.trim_start();
        Some(line.strip_prefix('=')?.trim().trim_matches(['"', '\'']).to_string())
    })?;
    let places = [PathBuf::from(&named), dir.join(&named)];
    let text = places.iter().find_map(|place| fs::read_to_string(place.join("manifest.json")).ok())?;
    let manifest: Value = serde_json::from_str(&text).ok()?;
    Some(manifest["report"].clone()).filter(Value::is_object)
}
