//! One chart as inline SVG.

use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;
/// More points than this show nothing more at the chart's width.
const MOST_POINTS: usize = 600;

/// A curve: its name in the legend, its style class, its (step, value) points by rising step.
pub(super) struct Series {
    pub name: &'static str,
    pub class: &'static str,
    pub points: Vec<(f64, f64)>,
    pub dots: bool,
}

/// A titled chart of values over steps; `marks` are steps at which a dotted line stands.
pub(super) struct Chart<'a> {
    pub title: &'a str,
    pub series: Vec<Series>,
    pub marks: &'a [f64],
}

impl Chart<'_> {
    /// The figure element.
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let (x0, x1) = range(all().map(|point| point.0));
        // A first wild step must not flatten the rest: the frame covers all but the top and bottom half percent.
        let (y0, y1) = range(trimmed(all().map(|point| point.1).collect()).into_iter());
        let margin = (y1 - y0) * 0.04;
        let (y0, y1) = (if y0 >= 0.0 { (y0 - margin).max(0.0) } else { y0 - margin }, y1 + margin);
        let px = |x: f64| LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
        let py = |y: f64| HEIGHT - BOTTOM - ((y - y0) / (y1 - y0)).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM);

        let mut out = format!("<figure>\n<h3>{}</h3>\n", self.title);
        let _ = writeln!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over steps\">",
            self.title
        );
        for y in ticks(y0, y1, 5) {
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>\
                 <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
                WIDTH - RIGHT,
                py(y),
                LEFT - 6.0,
                py(y) + 4.0,
                number(y)
            );
        }
        for x in ticks(x0, x1, 6) {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                px(x),
                HEIGHT - 8.0,
                number(x)
            );
        }
        for &mark in self.marks {
            let _ = writeln!(
                out,
                "<line class=\"mark\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1}\"/>",
                px(mark),
                HEIGHT - BOTTOM
            );
        }
        let mut hover = Vec::new();
        for series in &self.series {
            let points = thin(&series.points);
            let path: Vec<String> = points.iter().map(|&(x, y)| format!("{:.1},{:.1}", px(x), py(y))).collect();
            if points.len() > 1 {
                let _ = writeln!(out, "<polyline class=\"{}\" points=\"{}\"/>", series.class, path.join(" "));
            }
            if series.dots || points.len() == 1 {
                for &(x, y) in &points {
                    let _ = writeln!(
                        out,
                        "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                        series.class,
                        px(x),
                        py(y)
                    );
                }
            }
            let values: Vec<String> =
                points.iter().map(|&(x, y)| format!("[{:.1},{x},\"{}\"]", px(x), number(y))).collect();
            hover.push(format!("{{\"n\":\"{}\",\"p\":[{}]}}", series.name, values.join(",")));
        }
        let _ =
            writeln!(out, "<line class=\"cursor\" x1=\"0\" x2=\"0\" y1=\"{TOP}\" y2=\"{}\"/>\n</svg>", HEIGHT - BOTTOM);
        out.push_str("<figcaption>");
        for series in &self.series {
            let _ = write!(out, "<span class=\"key {}\">{}</span> ", series.class, series.name);
        }
        let _ = writeln!(
            out,
            "<output></output></figcaption>\n<script type=\"application/json\">[{}]</script>\n</figure>",
            hover.join(",")
        );
        out
    }
}

/// The running mean over `width` points back, so that the end of the curve is the newest value.
pub(super) fn smooth(points: &[(f64, f64)], width: usize) -> Vec<(f64, f64)> {
    let mut sum = 0.0;
    let mut out = Vec::with_capacity(points.len());
    for (at, &(x, y)) in points.iter().enumerate() {
        sum += y;
        if at >= width {
            sum -= points[at - width].1;
        }
        out.push((x, sum / (at + 1).min(width) as f64));
    }
    out
}

/// At most `MOST_POINTS` points: means of equal runs of neighbours, the last one kept as it is.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let run = points.len().div_ceil(MOST_POINTS);
    if run <= 1 {
        return points.to_vec();
    }
    points
        .chunks(run)
        .map(|chunk| {
            let mean = chunk.iter().map(|point| point.1).sum::<f64>() / chunk.len() as f64;
            (chunk[chunk.len() - 1].0, mean)
        })
        .collect()
}

fn trimmed(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 200;
    values[cut..values.len() - cut].to_vec()
}

/// The smallest and the largest value, pulled apart when they are equal.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if !low.is_finite() {
        (0.0, 1.0)
    } else if high > low {
        (low, high)
    } else {
        let around = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
        (low - around, high + around)
    }
}

/// Round values between `low` and `high`, about `wanted` of them, 1, 2 or 5 times a power of ten apart.
fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&step| step >= rough).unwrap_or(power);
    let first = (low / step).ceil() as i64;
    (first..).map(|n| n as f64 * step).take_while(|&value| value <= high + step * 1e-9).take(20).collect()
}

/// A value in at most four significant digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if size < 1e-3 {
        return format!("{value:.2e}").replace(".00e", "e");
    }
    if size >= 1e5 {
        return crate::format::short(value);
    }
    let places = (3 - size.log10().floor() as i32).clamp(0, 4) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts: Vec<String> =
            [0.0, 1e-4, 0.1234567, 7.25, 1234.56, 123_456.0, 0.5].into_iter().map(number).collect();
        assert_eq!(texts, ["0", "1e-4", "0.1235", "7.25", "1235", "123.5k", "0.5"]);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert!(ticks(7.93, 8.0, 5).iter().all(|tick| (7.93..=8.0).contains(tick)));
    }

    #[test]
    fn smoothing_and_thinning_keep_the_end() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|x| (f64::from(x), 1.0)).collect();
        assert_eq!(smooth(&points, 100), points);
        let thinned = thin(&points);
        assert!(thinned.len() <= MOST_POINTS);
        assert_eq!(thinned.last(), points.last());
    }

    #[test]
    fn equal_values_still_have_a_frame() {
        let chart = Chart {
            title: "t",
            series: vec![Series { name: "s", class: "line", points: vec![(1.0, 0.0), (2.0, 0.0)], dots: false }],
            marks: &[],
        };
        let svg = chart.svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
