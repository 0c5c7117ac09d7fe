//! The results of an ablation as an SVG chart: a panel for each result, with means, standard deviations and published
//! figures.

use std::fmt::Write;

use super::table::{Cell, Results};

/// Sizes in pixels.
const PANEL: f64 = 170.0;
const GAP: f64 = 24.0;
const LINE: f64 = 24.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 30.0;
/// Width of a character of the labels, approximately.
const CHARACTER: f64 = 6.8;
/// Colours that are different for readers who do not see red or green.
const OURS: &str = "#0060a8";
const PUBLISHED: &str = "#b35900";

/// The chart; `None` if there is no result yet.
pub fn chart(results: &Results) -> Option<String> {
    let has_values = |column: &usize| results.rows.iter().any(|cells| cells[*column].ours.is_some());
    let columns: Vec<usize> =
        (0..results.headings.len()).filter(|column| results.headings[*column].is_result).filter(has_values).collect();
    if columns.is_empty() {
        return None;
    }
    let longest = results.study.rows.iter().map(|row| row.title.chars().count()).max().unwrap_or_default();
    let left = 12.0 + CHARACTER * longest as f64;
    let width = left + columns.len() as f64 * (PANEL + GAP) + GAP;
    let height = TOP + LINE * results.rows.len() as f64 + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>",
        escape(&results.study.title)
    );
    let y = |row: usize| TOP + LINE * (row as f64 + 0.5);
    for (number, row) in results.study.rows.iter().enumerate() {
        let _ = writeln!(svg, "<text x=\"12\" y=\"{:.1}\">{}</text>", y(number) + 4.0, escape(&row.title));
    }
    let mut has_published = false;
    for (place, &column) in columns.iter().enumerate() {
        let heading = &results.headings[column];
        let x0 = left + GAP + place as f64 * (PANEL + GAP);
        let cells = || results.rows.iter().map(|cells| &cells[column]);
        let (low, high) = range(cells());
        let x = |value: f64| x0 + (value - low) / (high - low) * PANEL;
        let bottom = TOP + LINE * results.rows.len() as f64;
        let _ = writeln!(svg, "<text x=\"{x0:.1}\" y=\"46\" font-weight=\"bold\">{}</text>", escape(&heading.title));
        let _ = writeln!(
            svg,
            "<path d=\"M{x0:.1} {TOP}V{bottom:.1}H{:.1}\" fill=\"none\" stroke=\"#999\"/>\
             <text x=\"{x0:.1}\" y=\"{:.1}\">{low:.*}</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{high:.*}</text>",
            x0 + PANEL,
            bottom + 16.0,
            heading.decimals,
            x0 + PANEL,
            bottom + 16.0,
            heading.decimals,
        );
        for (number, cell) in cells().enumerate() {
            let y = y(number);
            if let Some(value) = cell.published {
                has_published = true;
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"none\" stroke=\"{PUBLISHED}\" stroke-width=\"1.5\"><title>{value}</title></circle>",
                    x(value)
                );
            }
            let Some(ours) = &cell.ours else { continue };
            if let Some(deviation) = ours.deviation {
                let ends = [x(ours.mean - deviation), x(ours.mean + deviation)];
                let _ = writeln!(
                    svg,
                    "<path d=\"M{:.1} {y:.1}H{:.1}\" stroke=\"{OURS}\" stroke-width=\"2\"/>",
                    ends[0], ends[1]
                );
            }
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{OURS}\"><title>{:.*}</title></circle>",
                x(ours.mean),
                heading.decimals,
                ours.mean
            );
        }
    }
    let mut key = format!("<tspan fill=\"{OURS}\">● mean ± standard deviation</tspan>");
    if has_published {
        let _ = write!(key, "  <tspan fill=\"{PUBLISHED}\">○ published</tspan>");
    }
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"20\" text-anchor=\"end\">{key}</text>\n</svg>", width - GAP);
    Some(svg)
}

/// The range of a panel: all values with their deviations, and a margin.
fn range<'a>(cells: impl Iterator<Item = &'a Cell>) -> (f64, f64) {
    let mut values = Vec::new();
    for cell in cells {
        values.extend(cell.published);
        if let Some(ours) = &cell.ours {
            let deviation = ours.deviation.unwrap_or_default();
            values.extend([ours.mean - deviation, ours.mean + deviation]);
        }
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let margin = if high > low { (high - low) * 0.08 } else { low.abs().max(1.0) * 0.05 };
    (low - margin, high + margin)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::results;
    use super::*;

    #[test]
    fn charts_have_a_panel_for_each_result_with_values() {
        let svg = chart(&results()).unwrap();
        assert!(svg.contains("LTR &amp; No NSP") && !svg.contains("tokens") && !svg.contains(">QNLI<"), "{svg}");
        // The held-out loss of one row, MRPC and SST-2 of one row each; the figures of the paper for both.
        assert_eq!(svg.matches("r=\"4\"").count(), 3);
        assert_eq!(svg.matches("r=\"4.5\"").count(), 8);
        // One of them has two seeds.
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), 1);
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn equal_values_have_a_range() {
        let (low, high) = range([Cell { published: Some(80.0), ..Cell::default() }].iter());
        assert!(low < 80.0 && high > 80.0);
    }
}
