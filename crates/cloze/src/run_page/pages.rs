//! The pages: one run, a folder with several fine-tunings, or a comparison of runs.

use std::fmt::Write;

use cloze_tasks::metrics::mean_std::MeanStd;

use super::chart::{self, Chart, Look, Point, STYLES, Series};
use super::details;
use super::html::{self, Table, escape, heading};
use super::measure::{BITS, MEASURES, Measure, Unit, XAxis};
use super::model::{Group, Kind, Part, Run, Setting, Subject};
use crate::format;

/// Maximum number of rows in the table of training values. The curves show all of them.
const TABLE_ROWS: usize = 20;
/// Shown for a missing value.
const MISSING: &str = "–";

/// The page for the given runs.
pub fn html(subjects: &[Subject]) -> String {
    match subjects {
        [Subject::Run(run)] => html::page(&run.name, &run_body(run)),
        [Subject::Group(group)] => html::page(&group.name, &group_body(group)),
        several => {
            let names: Vec<&str> = several.iter().map(Subject::name).collect();
            let title = if names.len() < 4 { names.join(" and ") } else { format!("{} runs compared", names.len()) };
            html::page(&title, &comparison_body(several))
        }
    }
}

fn run_body(run: &Run) -> String {
    let mut body = format!("<p class=\"what\">{}</p>\n", run.kind.name());
    body += &html::tiles(&run_tiles(run));
    body += &charts(&run.axes(), &run_charts(run));
    body += &evaluations(run);
    body += &training_values(run);
    body += &events(run);
    if run.kind == Kind::FineTuning {
        section(&mut body, "Data", &details::rows(run));
    }
    if let Some(corpus) = &run.corpus {
        section(&mut body, "Corpus", &details::corpus(corpus));
        if !corpus.warnings.is_empty() {
            let _ = write!(body, "<h3>Warnings</h3>\n{}", html::list(&corpus.warnings));
        }
    }
    section(&mut body, "Machine and run", &details::machine(run));
    settings_text(&mut body, run.kind, &run.settings.text);
    body
}

fn section(body: &mut String, title: &str, entries: &[(String, String)]) {
    if !entries.is_empty() {
        *body += &heading(title);
        *body += &html::key_values(entries);
    }
}

fn settings_text(body: &mut String, kind: Kind, text: &str) {
    if !text.trim().is_empty() {
        let title = match kind {
            Kind::PreTraining => "Recipe (recipe.toml)",
            Kind::FineTuning => "Settings (finetune.toml)",
        };
        let _ = writeln!(body, "{}<pre tabindex=\"0\">{}</pre>", heading(title), escape(text.trim_end()));
    }
}

fn run_tiles(run: &Run) -> Vec<(String, String)> {
    let mut tiles = Vec::new();
    let mut tile = |label: &str, value: Option<String>| tiles.extend(value.map(|value| (label.to_owned(), value)));
    let planned = run.start().and_then(|start| start.steps).filter(|steps| *steps > run.step());
    let of_total = planned.map_or_else(String::new, |steps| format!(" of {}", format::count(steps)));
    if run.kind == Kind::FineTuning {
        if let Some(measure) = run.deciding() {
            let value = run.final_score(measure.key).map(|value| measure.unit.text(value));
            tile(&format!("best dev {}", lower_case(measure.title)), value);
            let best = run.best_record();
            let epoch =
                best.and_then(|best| best.epoch).map_or_else(String::new, |epoch| format!(", epoch {epoch:.2}"));
            tile("best model", best.map(|best| format!("step {}{epoch}", format::count(best.step))));
        }
        tile("collapsed", run.collapsed().map(|answer| format!("always {answer}")));
    }
    if run.kind == Kind::PreTraining {
        // The first loss, which selects the best evaluation, also in bits per character, and the accuracy of each loss.
        let losses = run.losses();
        let names = || losses.iter().filter_map(Measure::loss_name);
        let keys = names().take(1).map(|name| format!("{name}{BITS}"));
        let keys = keys.chain(names().map(|name| format!("{name}_accuracy")));
        for measure in losses.iter().copied().take(1).chain(keys.filter_map(|key| Measure::find(&key))) {
            let value = run.final_score(measure.key).map(|value| measure.unit.text(value));
            tile(&format!("held-out {}", measure.title), value);
        }
    }
    tile("steps", Some(format!("{}{of_total}", format::count(run.step()))));
    tile("tokens", run.tokens().map(|tokens| format::short(tokens as f64)));
    tile("time", run.seconds().map(format::duration));
    let speed = run.training.last().and_then(|record| record.value("tokens_per_s"));
    tile("tokens per second", speed.map(format::short));
    tiles
}

/// A title in lower case, except for names and abbreviations.
fn lower_case(title: &str) -> String {
    let mut letters = title.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() && !title.starts_with("Matthews") => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => title.to_owned(),
    }
}

/// The switch between horizontal axes, and the charts.
fn charts(axes: &[XAxis], charts: &[Chart]) -> String {
    if charts.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section aria-label=\"curves\">\n");
    if axes.len() > 1 {
        out.push_str("<fieldset class=\"switch\"><legend>horizontal axis</legend>\n");
        for (number, x) in axes.iter().enumerate() {
            let checked = if number == 0 { " checked" } else { "" };
            let key = x.key();
            let _ = writeln!(out, "<label><input type=\"radio\" name=\"x\" id=\"x-{key}\"{checked}> {key}</label>");
        }
        out.push_str("</fieldset>\n");
    }
    out.push_str("<div class=\"charts\">\n");
    charts.iter().for_each(|chart| out.push_str(&chart.figure()));
    out + "</div>\n</section>\n"
}

/// Whether a measure has a chart. In pre-training the total loss has none, because its parts are shown, and neither has
/// the perplexity, which is the exponential of a loss.
fn has_chart(measure: &Measure, kind: Kind) -> bool {
    kind == Kind::FineTuning || measure.key != "loss" && !measure.is_perplexity()
}

fn is_smoothed(measure: &Measure, points: &[Point]) -> bool {
    measure.noisy && points.len() > 20
}

fn smooth(points: &[Point]) -> Vec<Point> {
    chart::smooth(points, (points.len() / 50).clamp(3, 200))
}

fn run_charts(run: &Run) -> Vec<Chart> {
    let axes = run.axes();
    let marks: Vec<Vec<f64>> =
        axes.iter().map(|&x| run.phases().into_iter().map(|step| run.axis_position(step, x)).collect()).collect();
    let mut charts = Vec::new();
    for measure in MEASURES.into_iter().filter(|measure| has_chart(measure, run.kind)) {
        let training = run.curve(measure.key, Part::Training, &axes);
        let evaluated = run.curve(measure.key, Part::Evaluation, &axes);
        let mut series = Vec::new();
        let mut curve = |name: &str, style, look, points: Vec<Point>| {
            if !points.is_empty() {
                series.push(Series { name: name.to_owned(), style, look, points });
            }
        };
        if is_smoothed(&measure, &training) {
            let mean = smooth(&training);
            curve("training", 0, Look::Faint, training);
            curve("training, running mean", 0, Look::Line, mean);
        } else {
            curve("training", 0, Look::Line, training);
        }
        curve(run.kind.held_out(), 1, Look::Dots, evaluated);
        if !series.is_empty() {
            let (title, axes, marks) = (measure.title.to_owned(), axes.clone(), marks.clone());
            charts.push(Chart { title, measure, axes, series, marks });
        }
    }
    charts
}

/// One chart for each measure with the curves of several runs, or of settings with several runs each.
fn overlaid_charts(entries: &[Setting<'_>], kind: Kind, measures: &[Measure]) -> (Vec<XAxis>, Vec<Chart>) {
    let drawn = entries.iter().flat_map(|entry| &entry.runs).filter(|run| run.records().next().is_some());
    let axes =
        drawn.map(|run| run.axes()).reduce(|common, axes| common.into_iter().filter(|x| axes.contains(x)).collect());
    let axes = axes.unwrap_or_else(|| vec![XAxis::Step]);
    let mut charts = Vec::new();
    for &measure in measures {
        for part in [Part::Training, Part::Evaluation] {
            let curve = |(style, entry): (usize, &Setting<'_>)| {
                let points = entry.curve(measure.key, part, &axes);
                let points = if is_smoothed(&measure, &points) { smooth(&points) } else { points };
                let look = if part == Part::Training { Look::Line } else { Look::Dots };
                (!points.is_empty()).then(|| Series { name: entry.name.clone(), style, look, points })
            };
            let series: Vec<Series> = entries.iter().enumerate().filter_map(curve).collect();
            if series.is_empty() {
                continue;
            }
            let of_part = match part {
                Part::Evaluation => format!(", {}", kind.held_out()),
                // These measures exist only in training.
                Part::Training if ["lr", "grad_norm", "tokens_per_s", "share_of_peak"].contains(&measure.key) => {
                    String::new()
                }
                Part::Training => ", training".to_owned(),
            };
            let title = format!("{}{of_part}", measure.title);
            charts.push(Chart { title, measure, axes: axes.clone(), series, marks: Vec::new() });
        }
    }
    (axes, charts)
}

fn evaluations(run: &Run) -> String {
    if run.evaluations.is_empty() {
        return String::new();
    }
    // All scores, in the order of the charts.
    let measures: Vec<Measure> = MEASURES.into_iter().filter(|measure| run.scores().contains(measure)).collect();
    let mut headers = vec!["step".to_owned(), "epoch".into(), "time".into()];
    headers.extend(measures.iter().map(|measure| measure.title.to_owned()));
    headers.push("remark".into());
    let mut table = Table::new(headers);
    let best = match run.kind {
        Kind::FineTuning => run.best_record().map(|record| record.step),
        Kind::PreTraining => {
            let deciding = run.losses().first().map_or("", |measure| measure.key);
            let loss = |step: u64| run.evaluations.iter().find(|record| record.step == step)?.value(deciding);
            let steps = run.evaluations.iter().map(|record| record.step).filter(|step| loss(*step).is_some());
            steps.min_by(|a, b| loss(*a).unwrap_or(f64::INFINITY).total_cmp(&loss(*b).unwrap_or(f64::INFINITY)))
        }
    };
    for record in &run.evaluations {
        let collapsed = record.figures.get("scores").and_then(|scores| scores.get("collapsed")?.as_str());
        let is_best = best == Some(record.step);
        let best_remark = is_best.then(|| "best".to_owned()).into_iter();
        let remarks: Vec<String> =
            best_remark.chain(collapsed.map(|answer| format!("collapsed: always {answer}"))).collect();
        let mut row = vec![
            format::count(record.step),
            record.epoch.map_or(MISSING.into(), |epoch| format!("{epoch:.2}")),
            record.seconds.map_or(MISSING.into(), format::duration),
        ];
        row.extend(measures.iter().map(|measure| value_text(measure, record.value(measure.key))));
        row.push(remarks.join("; "));
        table.row(if is_best { "best" } else { "" }, row);
    }
    let title = match run.kind {
        Kind::PreTraining => "Evaluations on held-out documents",
        Kind::FineTuning => "Evaluations on the dev rows",
    };
    heading(title) + &table.html()
}

fn value_text(measure: &Measure, value: Option<f64>) -> String {
    value.map_or(MISSING.into(), |value| measure.unit.text(value))
}

/// A table of some training values, for readers who cannot see the curves.
fn training_values(run: &Run) -> String {
    if run.training.is_empty() {
        return String::new();
    }
    let logged = |measure: &Measure| run.training.iter().any(|record| record.value(measure.key).is_some());
    let measures: Vec<Measure> = MEASURES.into_iter().filter(|m| has_chart(m, run.kind) && logged(m)).collect();
    let mut headers = vec!["step".to_owned(), "tokens".into(), "time".into()];
    headers.extend(measures.iter().map(|measure| measure.title.to_owned()));
    let mut table = Table::new(headers);
    let every = run.training.len().div_ceil(TABLE_ROWS);
    let last = run.training.len() - 1;
    for (_, record) in
        run.training.iter().enumerate().filter(|(number, _)| number % every == every - 1 || *number == last)
    {
        let mut row = vec![
            format::count(record.step),
            record.tokens.map_or(MISSING.into(), format::count),
            record.seconds.map_or(MISSING.into(), format::duration),
        ];
        row.extend(measures.iter().map(|measure| value_text(measure, record.value(measure.key))));
        table.row("", row);
    }
    format!("<details><summary>Training values</summary>\n{}</details>\n", table.html())
}

fn events(run: &Run) -> String {
    let mut items: Vec<String> = Vec::new();
    if run.unreadable > 0 {
        let (lines, were) = if run.unreadable == 1 { ("line", "was") } else { ("lines", "were") };
        items.push(format!("{} {lines} of metrics.jsonl could not be read and {were} skipped", run.unreadable));
    }
    items.extend(run.events.iter().map(|(step, message)| match step {
        Some(step) => format!("step {}: {message}", format::count(*step)),
        None => message.clone(),
    }));
    if items.is_empty() { items.join("") } else { heading("Messages") + &html::list(&items) }
}

/// "85.0 ± 7.1 %"; for a single run "85.0 %".
fn spread_text(measure: &Measure, spread: Option<MeanStd>) -> String {
    let Some(MeanStd { mean, deviation, .. }) = spread else { return MISSING.into() };
    match (measure.unit, deviation) {
        (unit, None) => unit.text(mean),
        (Unit::Percent, Some(deviation)) => format!("{:.1} ± {:.1} %", 100.0 * mean, 100.0 * deviation),
        (unit, Some(deviation)) => format!("{} ± {}", unit.text(mean), unit.text(deviation)),
    }
}

fn group_body(group: &Group) -> String {
    let (varied, scores, deciding, ranked) = (group.varied(), group.scores(), group.deciding(), group.ranked());
    let what = match varied.is_empty() {
        true => "fine-tunings that differ in their seed".to_owned(),
        false => format!("fine-tunings over a grid of {}", varied.join(", ")),
    };
    let mut body = format!("<p class=\"what\">{}</p>\n", escape(&what));

    let mut tiles = Vec::new();
    let mut tile = |label: &str, value: String| tiles.push((label.to_owned(), value));
    if let (Some(measure), Some(best)) = (deciding, ranked.first()) {
        let title = lower_case(measure.title);
        let label =
            if varied.is_empty() { format!("dev {title}, mean") } else { format!("dev {title}, best setting's mean") };
        let spread = best.spread(measure.key);
        let is_known = spread.is_some();
        tile(&label, spread_text(&measure, spread));
        if !varied.is_empty() && is_known {
            tile("best setting", best.name.clone());
        }
        let best_score = group.runs.iter().filter_map(|run| run.final_score(measure.key)).reduce(f64::max);
        tile(&format!("dev {title}, best run"), value_text(&measure, best_score));
    }
    tile("runs", format::count(group.runs.len() as u64));
    for (label, count) in [
        ("collapsed", group.runs.iter().filter(|run| run.collapsed().is_some()).count()),
        ("failed", group.runs.iter().filter(|run| run.failed.is_some()).count()),
    ] {
        if count > 0 {
            tile(label, format::count(count as u64));
        }
    }
    tile("time of training", format::duration(group.runs.iter().filter_map(Run::seconds).sum()));
    body += &html::tiles(&tiles);

    let runs = heading("Runs") + &runs_table(group, deciding, &varied, &scores);
    body += &if varied.is_empty() {
        runs.clone()
    } else {
        heading("Settings") + &settings_table(deciding, &varied, &scores, &ranked)
    };

    // For one setting, draw its runs; for several settings, draw their means.
    let (entries, of) = match varied.is_empty() {
        true => {
            let each = group.runs.iter().map(|run| Setting { name: run.name.clone(), runs: vec![run] });
            (each.collect::<Vec<_>>(), "runs")
        }
        false => (ranked, "settings, each the mean of its seeds"),
    };
    let drawn = &entries[..entries.len().min(STYLES)];
    let measures: Vec<Measure> = MEASURES
        .into_iter()
        .filter(|measure| {
            scores.contains(measure) || measure.key == "loss" || measure.key == "lr" && !varied.is_empty()
        })
        .collect();
    let (axes, overlaid) = overlaid_charts(drawn, Kind::FineTuning, &measures);
    body += &heading("Curves");
    if drawn.len() < entries.len() {
        let order = if varied.is_empty() { "first" } else { "best" };
        let _ = writeln!(body, "<p>The {order} {} of {} {of}.</p>", drawn.len(), entries.len());
    }
    body += &charts(&axes, &overlaid);
    if !varied.is_empty() {
        body += &runs;
    }

    if let Some(run) = group.runs.iter().find(|run| run.start().is_some()) {
        section(&mut body, "Data", &details::rows(run));
        section(&mut body, "Machine and first run", &details::machine(run));
        let is_common = |line: &&str| {
            let key = line.split('=').next().unwrap_or_default().trim();
            group.runs.iter().all(|other| other.settings.get(key) == run.settings.get(key))
        };
        let common: Vec<&str> = run.settings.text.lines().filter(is_common).collect();
        settings_text(&mut body, Kind::FineTuning, &common.join("\n"));
    }
    body
}

/// The column headers of a group's scores.
fn score_headers(scores: &[Measure]) -> impl Iterator<Item = String> {
    scores.iter().map(|measure| if measure.key == "loss" { "Dev loss".into() } else { measure.title.to_owned() })
}

/// The value of a key of a run's settings.
fn setting_value(run: &Run, key: &str) -> String {
    run.settings.get(key).unwrap_or(MISSING).to_owned()
}

/// A table of the mean and standard deviation of each setting of a grid, the best first.
fn settings_table(deciding: Option<Measure>, varied: &[&str], scores: &[Measure], settings: &[Setting<'_>]) -> String {
    let names = varied.iter().map(|key| (*key).to_owned());
    let rest = ["seeds", "collapsed", "failed", "time"].map(str::to_owned);
    let mut table = Table::new(names.chain(score_headers(scores)).chain(rest));
    for (place, setting) in settings.iter().enumerate() {
        let count = |of: &dyn Fn(&Run) -> bool| match setting.runs.iter().filter(|run| of(run)).count() {
            0 => MISSING.to_owned(),
            count => format::count(count as u64),
        };
        let mut row: Vec<String> = varied.iter().map(|key| setting_value(setting.runs[0], key)).collect();
        row.extend(scores.iter().map(|measure| spread_text(measure, setting.spread(measure.key))));
        row.push(format::count(setting.runs.len() as u64));
        row.push(count(&|run| run.collapsed().is_some()));
        row.push(count(&|run| run.failed.is_some()));
        row.push(format::duration(setting.runs.iter().filter_map(|run| run.seconds()).sum()));
        let is_best = place == 0 && deciding.is_some_and(|measure| setting.spread(measure.key).is_some());
        table.row(if is_best { "best" } else { "" }, row);
    }
    table.html()
}

/// A table of the runs of a group. For a single setting the last row is their mean and standard deviation.
fn runs_table(group: &Group, deciding: Option<Measure>, varied: &[&str], scores: &[Measure]) -> String {
    let mut headers = vec!["run".to_owned()];
    headers.extend(varied.iter().map(|key| (*key).to_owned()));
    headers.extend(["seed", "best step", "epoch"].map(str::to_owned));
    headers.extend(score_headers(scores));
    headers.extend(["time", "remark"].map(str::to_owned));
    let mut table = Table::new(headers);
    let score = |run: &Run| run.final_score(deciding?.key);
    let best = group.runs.iter().filter_map(score).reduce(f64::max);
    for run in &group.runs {
        let record = run.best_record();
        let mut row = vec![run.name.clone()];
        row.extend(varied.iter().map(|key| setting_value(run, key)));
        row.push(setting_value(run, "seed"));
        row.push(record.map_or(MISSING.into(), |record| format::count(record.step)));
        row.push(record.and_then(|record| record.epoch).map_or(MISSING.into(), |epoch| format!("{epoch:.2}")));
        row.extend(scores.iter().map(|measure| value_text(measure, run.final_score(measure.key))));
        row.push(run.seconds().map_or(MISSING.into(), format::duration));
        let is_best = best.is_some() && score(run) == best;
        let (class, remark) = match (&run.failed, run.collapsed()) {
            (Some(why), _) => ("bad", format!("failed: {why}")),
            (None, Some(answer)) if run.unfinished => ("bad", format!("unfinished; so far collapsed: always {answer}")),
            (None, Some(answer)) => ("bad", format!("collapsed: always {answer}")),
            (None, None) if run.unfinished => ("", "unfinished".to_owned()),
            // Without dev rows there are no scores, so a run that was trained needs no remark.
            (None, None) if run.best.is_none() && run.training.is_empty() => ("", "no result".to_owned()),
            (None, None) if is_best => ("best", "best".to_owned()),
            (None, None) => ("", String::new()),
        };
        row.push(remark);
        table.row(class, row);
    }
    if varied.is_empty() && group.runs.len() > 1 {
        let all = Setting { name: group.name.clone(), runs: group.runs.iter().collect() };
        let mut row = vec!["mean ± standard deviation".to_owned()];
        row.extend(vec![String::new(); 3]);
        row.extend(scores.iter().map(|measure| spread_text(measure, all.spread(measure.key))));
        row.push(format::duration(group.runs.iter().filter_map(Run::seconds).sum()));
        row.push(String::new());
        table.row("mean", row);
    }
    table.html()
}

fn comparison_body(subjects: &[Subject]) -> String {
    let kind = subjects[0].kind();
    let entries: Vec<Setting<'_>> = subjects.iter().map(Subject::compared_setting).collect();
    let mut body = format!("<p class=\"what\">{} runs compared</p>\n", kind.name());
    body += &heading("Final scores");
    body += &final_scores(&entries, kind);
    let notes = comparison_notes(&entries, kind);
    if !notes.is_empty() {
        body += &html::list(&notes);
    }
    body += &heading("What differs");
    let differences = differences(subjects);
    if differences.is_empty() {
        body.push_str("<p>The runs have the same settings.</p>\n");
    } else {
        let mut table = Table::new(std::iter::once("setting").chain(entries.iter().map(|entry| entry.name.as_str())));
        for (key, values) in differences {
            table.row("", std::iter::once(key).chain(values).collect());
        }
        body += &table.html();
    }
    body += &heading("Curves");
    let measures: Vec<Measure> = MEASURES.into_iter().filter(|measure| has_chart(measure, kind)).collect();
    let drawn = &entries[..entries.len().min(STYLES)];
    if drawn.len() < entries.len() {
        let _ = writeln!(body, "<p>The first {} of {} runs.</p>", drawn.len(), entries.len());
    }
    let (axes, overlaid) = overlaid_charts(drawn, kind, &measures);
    body += &charts(&axes, &overlaid);
    for subject in subjects {
        let text = match subject {
            Subject::Run(run) => &run.settings.text,
            Subject::Group(group) => &group.runs[0].settings.text,
        };
        if !text.trim().is_empty() {
            let name = escape(subject.name());
            let _ = writeln!(
                body,
                "<details><summary>Settings of {name}</summary><pre>{}</pre></details>",
                escape(text.trim_end())
            );
        }
    }
    body
}

fn final_scores(entries: &[Setting<'_>], kind: Kind) -> String {
    let is_scored =
        |measure: &Measure| entries.iter().flat_map(|entry| &entry.runs).any(|run| run.scores().contains(measure));
    let measures: Vec<Measure> = MEASURES.into_iter().filter(is_scored).collect();
    let mut headers = vec!["run".to_owned(), "runs".to_owned()];
    headers.extend(measures.iter().map(|measure| format!("{}, {}", measure.title, kind.held_out())));
    headers.extend(["steps", "tokens", "time", "tokens per second"].map(str::to_owned));
    let mut table = Table::new(headers);
    for entry in entries {
        // Failed runs are excluded from the means, as from the scores.
        let runs: Vec<&Run> = entry.runs.iter().copied().filter(|run| run.failed.is_none()).collect();
        let mean = |value: &dyn Fn(&Run) -> Option<f64>| {
            let values: Vec<f64> = runs.iter().filter_map(|run| value(run)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let count = match (runs.len(), entry.runs.len() - runs.len()) {
            (_, 0) if entry.runs.len() == 1 => String::new(),
            (n, 0) => format!("{n} (mean)"),
            (n, failed) => format!("{n} (mean), {failed} failed"),
        };
        let mut row = vec![entry.name.clone(), count];
        row.extend(measures.iter().map(|measure| spread_text(measure, entry.spread(measure.key))));
        row.push(mean(&|run| Some(run.step() as f64)).map_or(MISSING.into(), |steps| format::count(steps as u64)));
        row.push(mean(&|run| run.tokens().map(|tokens| tokens as f64)).map_or(MISSING.into(), format::short));
        row.push(mean(&|run| run.seconds()).map_or(MISSING.into(), format::duration));
        let speed = mean(&|run| run.training.last()?.value("tokens_per_s"));
        row.push(speed.map_or(MISSING.into(), format::short));
        table.row("", row);
    }
    table.html()
}

/// Reasons why the scores of the runs cannot be compared directly.
fn comparison_notes(entries: &[Setting<'_>], kind: Kind) -> Vec<String> {
    let differ = |of: &dyn Fn(&Run) -> Option<String>| {
        let values: Vec<String> = entries.iter().flat_map(|entry| &entry.runs).filter_map(|run| of(run)).collect();
        values.windows(2).any(|pair| pair[0] != pair[1])
    };
    match kind {
        Kind::PreTraining if differ(&|run| run.tokenizer.clone()) => {
            vec!["The runs have different vocabularies, so their losses cannot be compared.".into()]
        }
        Kind::FineTuning if differ(&|run| run.rows.clone()) => {
            vec![
                "The runs used different rows, or read them differently, so their scores are not directly comparable."
                    .into(),
            ]
        }
        _ => Vec::new(),
    }
}

/// The settings that differ between the subjects: the key, and one value for each subject.
pub fn differences(subjects: &[Subject]) -> Vec<(String, Vec<String>)> {
    let all: Vec<Vec<(String, String)>> =
        subjects.iter().map(|subject| settings_of(&subject.compared_setting())).collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in all.iter().flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let value = |of: &Vec<(String, String)>, key: &String| {
        of.iter().find(|(name, _)| name == key).map_or("not set".to_owned(), |(_, value)| value.clone())
    };
    let rows = keys.into_iter().map(|key| (key.clone(), all.iter().map(|of| value(of, key)).collect::<Vec<_>>()));
    rows.filter(|(_, values)| values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

/// All settings of the runs of an entry. Different values of a key are joined with commas.
fn settings_of(entry: &Setting<'_>) -> Vec<(String, String)> {
    let mut settings: Vec<(String, Vec<String>)> = Vec::new();
    for run in &entry.runs {
        let rows = if run.kind == Kind::FineTuning { details::rows(run) } else { Vec::new() };
        let machine = details::machine(run).into_iter().filter(|(label, _)| {
            ["machine", "program", "initial model", "parameters of the model"].contains(&label.as_str())
        });
        for (key, value) in run.settings.keys.iter().cloned().chain(rows).chain(machine) {
            match settings.iter_mut().find(|(name, _)| *name == key) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => settings.push((key, vec![value])),
            }
        }
    }
    settings.into_iter().map(|(key, values)| (key, values.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::Settings;
    use super::super::model::tests::{finetuning, pretraining};
    use super::*;

    fn subject(run: Run) -> Subject {
        Subject::Run(Box::new(run))
    }

    /// Checks that every drawing has two axis labels.
    #[track_caller]
    fn check_axes(html: &str) {
        let drawings: Vec<&str> =
            html.split("<svg class=\"chart").skip(1).filter_map(|part| part.split("</svg>").next()).collect();
        assert!(!drawings.is_empty());
        for drawing in drawings {
            assert_eq!(drawing.matches("class=\"name\"").count(), 2, "{drawing}");
        }
    }

    #[test]
    fn page_is_self_contained_and_escaped() {
        let mut run = pretraining("mini & co", 100);
        run.settings = Settings::new("a = \"<b>\"".into());
        let mut report = cloze_data::report::CorpusReport::default();
        report.documents = 1_234_567;
        report.warnings.push("5 % of the tokens are <UNK>".into());
        run.corpus = Some(report);
        run.read_metrics("{\"kind\":\"event\",\"step\":3,\"message\":\"skipped <a step>\"}\n{\"kind\":\"tr");
        let html = html(&[subject(run)]);
        assert!(html.starts_with("<!doctype html>"));
        for outside in ["http:", "https:", "src=", "url(", "@import"] {
            assert!(!html.contains(outside), "{outside}");
        }
        for text in [
            "mini &amp; co",
            "step 3: skipped &lt;a step&gt;",
            "a = &quot;&lt;b&gt;&quot;",
            "1,234,567",
            "cpu &lt;avx&gt;",
            "1 line of metrics.jsonl could not be read",
            "<li>5 % of the tokens are &lt;UNK&gt;</li>",
        ] {
            assert!(html.contains(text), "{text}");
        }
        assert!(html.contains("<h3>MLM loss</h3>") && !html.contains("<h3>NSP loss</h3>"), "no chart without values");
        assert!(!html.contains("NaN") && !html.contains("inf\""));
        check_axes(&html);
    }

    #[test]
    fn a_run_with_one_step_has_charts() {
        check_axes(&html(&[subject(pretraining("r", 1))]));
    }

    #[test]
    fn tiles_show_the_newest_values() {
        let html = html(&[subject(pretraining("r", 20))]);
        for (label, value) in [("steps", "21"), ("time", "24 s"), ("held-out MLM accuracy", "12.0 %")] {
            assert!(html.contains(&format!("<dt>{label}</dt><dd>{value}</dd>")), "{label}");
        }
    }

    #[test]
    fn the_page_of_a_fine_tuning_shows_its_scores() {
        let html = html(&[subject(finetuning("stars", 0.9, "lr = 5e-5\nseed = 1"))]);
        for text in [
            "<dt>best dev accuracy</dt><dd>90.0 %</dd>",
            "<dt>best model</dt><dd>step 40, epoch 2.00</dd>",
            "<h3>Loss</h3>",
            "<h3>Accuracy</h3>",
            "<h3>Macro F1</h3>",
            "collapsed: always yes",
            "Settings (finetune.toml)",
        ] {
            assert!(html.contains(text), "{text}");
        }
        assert!(!html.contains("MLM") && !html.contains("held-out"));
        check_axes(&html);
    }

    #[test]
    fn comparisons_list_only_differing_settings() {
        let with = |name: &str, settings: &str| {
            let mut run = pretraining(name, 30);
            run.settings = Settings::new(settings.into());
            subject(run)
        };
        let runs = [
            with("a", "seed = 1\n[optimizer]\nlr = 1e-4\nkind = \"adamw\""),
            with("b", "seed = 1\n[optimizer]\nlr = 5e-4\nkind = \"adamw\"\nclip_norm = 1.0"),
        ];
        let expected = [("optimizer.lr", ["1e-4", "5e-4"]), ("optimizer.clip_norm", ["not set", "1.0"])];
        let found = differences(&runs);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (key, values) in expected {
            assert!(found.contains(&(key.into(), values.map(str::to_owned).to_vec())), "{key}: {found:?}");
        }
        let html = html(&runs);
        assert!(html.contains("<h1>a and b</h1>") && html.contains("<h3>MLM loss, held-out</h3>"));
        let figure = html.split("<h3>MLM loss, training</h3>").nth(1).unwrap().split("</figure>").next().unwrap();
        assert!(figure.contains("line s0") && figure.contains("line s1"), "each run has its own colour and dashes");
        check_axes(&html);
    }

    #[test]
    fn comparisons_note_different_rows_and_vocabularies() {
        let mut runs = ["x", "y"].map(|rows| {
            let mut run = finetuning(rows, 0.5, "");
            run.rows = Some(rows.into());
            run
        });
        assert!(html(&runs.clone().map(subject)).contains("different rows"));
        runs[1].rows = runs[0].rows.clone();
        assert!(!html(&runs.map(subject)).contains("different rows"));
        let runs = ["x", "y"].map(|tokenizer| {
            let mut run = pretraining(tokenizer, 5);
            run.tokenizer = Some(tokenizer.into());
            subject(run)
        });
        assert!(html(&runs).contains("different vocabularies"));
    }

    #[test]
    fn seeds_have_mean_and_deviation_and_collapsed_runs_are_marked() {
        let mut runs: Vec<Run> = [0.5, 0.6, 0.7]
            .iter()
            .zip(1..)
            .map(|(score, seed)| finetuning(&format!("seed-{seed}"), *score, &format!("lr = 5e-5\nseed = {seed}")))
            .collect();
        let Some(best) = &mut runs[2].best else { panic!("no best") };
        best.step = 20;
        let html = html(&[Subject::Group(Group { name: "seeds".into(), dir: "seeds".into(), runs })]);
        assert!(html.contains("collapsed: always yes") && html.contains("<dt>collapsed</dt><dd>1</dd>"), "{html}");
        // The best evaluation of the third run is at step 20, with 50 %.
        assert!(html.contains("<td>53.3 ± 5.8 %</td>"), "{html}");
        let settings = html.split("Settings (finetune.toml)").nth(1).unwrap();
        assert!(settings.contains("lr = 5e-5") && !settings.contains("seed ="), "only the common settings are shown");
    }

    #[test]
    fn comparisons_include_groups_without_scores() {
        let unscored = |name: &str, settings: &str| {
            let mut run = finetuning(name, 0.5, settings);
            run.best = None;
            run.evaluations.clear();
            run
        };
        let group = |name: &str, runs| Subject::Group(Group { name: name.into(), dir: name.into(), runs });
        let mut removed = unscored("seed-2", "lr = 1e-4\nseed = 2");
        removed.training.clear();
        let subjects = [
            group("unscored", vec![unscored("seed-1", "lr = 1e-4\nseed = 1"), removed]),
            group("grid", vec![unscored("a", "lr = 2e-4"), unscored("b", "lr = 3e-4")]),
            subject(finetuning("scored", 0.9, "lr = 5e-5\nseed = 1")),
        ];
        let found = differences(&subjects);
        assert!(found.contains(&("lr".into(), ["1e-4", "2e-4", "5e-5"].map(str::to_owned).to_vec())), "{found:?}");
        assert!(found.iter().all(|(_, values)| values.len() == subjects.len()), "{found:?}");
        let compared = html(&subjects);
        for name in ["unscored", "grid: first setting, lr 2e-4", "scored"] {
            assert!(compared.contains(&format!("<th scope=\"col\">{name}</th>")), "{name}");
        }
        let html = html(&subjects[..1]);
        assert_eq!(html.matches("no result").count(), 1, "only for the run without training records: {html}");
    }

    #[test]
    fn unfinished_and_failed_runs_are_marked() {
        let mut runs = [0.7, 0.8, 0.6].map(|score| finetuning(&format!("run-{score}"), score, "lr = 5e-5")).to_vec();
        runs[1].best = None;
        runs[1].failed = Some("not finite at step 40".into());
        runs[2].best = None;
        runs[2].unfinished = true;
        let group = Subject::Group(Group { name: "seeds".into(), dir: "seeds".into(), runs });
        let page = html(std::slice::from_ref(&group));
        assert!(page.contains("<td>unfinished</td>") && !page.contains("no result"), "{page}");
        assert!(page.contains("<dt>dev accuracy, mean</dt><dd>65.0 ± 7.1 %</dd>"), "{page}");
        assert!(page.contains("<dt>dev accuracy, best run</dt><dd>70.0 %</dd>"), "{page}");
        let compared = html(&[group, subject(finetuning("other", 0.9, ""))]);
        assert!(compared.contains("<td>2 (mean), 1 failed</td>"), "{compared}");
    }

    #[test]
    fn a_chart_is_shown_by_browsers_without_has_selectors() {
        // Such browsers drop the complete rule if they do not support one of its selectors.
        assert!(include_str!("page.css").contains("\n.x-step { display: block; }\n"));
    }

    #[test]
    fn lower_case_titles_keep_names_and_abbreviations() {
        assert_eq!(
            ["Accuracy", "F1", "MLM loss", "Matthews correlation"].map(lower_case),
            ["accuracy", "F1", "MLM loss", "Matthews correlation"]
        );
    }
}
