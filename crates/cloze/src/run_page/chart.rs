//! One chart as inline SVG: labelled axes, curves with different colours and dashes, a legend, and the values that the
//! page shows under the pointer.

use std::fmt::Write;

use super::html::escape;
use super::measure::{Measure, Unit, XAxis};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;
/// Space for the tick labels at the font size used on phones.
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 56.0;
/// Maximum number of points of a curve: more are not visible at the chart's width.
const MAX_POINTS: usize = 400;
/// Number of combinations of colour and dashes in page.css.
pub const STYLES: usize = 8;

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A thin, faint line: the single values behind their running mean.
    Faint,
    /// A line.
    Line,
    /// A line with a dot at each value, for evaluations.
    Dots,
}

/// A value at a step, with its position on each of the chart's horizontal axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The optimizer step.
    pub step: u64,
    /// The value.
    pub value: f64,
    /// The position on each axis of the chart, in the order of its axes.
    pub x: Vec<f64>,
}

/// A curve.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// The colour and dashes, less than [`STYLES`].
    pub style: usize,
    /// How the curve is drawn.
    pub look: Look,
    /// The points in order of their steps.
    pub points: Vec<Point>,
}

/// A chart of one measure, drawn once for each horizontal axis. The page shows one of these drawings at a time.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The title above the chart.
    pub title: String,
    /// The measure of the values.
    pub measure: Measure,
    /// The horizontal axes.
    pub axes: Vec<XAxis>,
    /// The curves.
    pub series: Vec<Series>,
    /// For each axis, the positions where phases begin.
    pub marks: Vec<Vec<f64>>,
}

impl Chart {
    /// The chart as an HTML `figure` element.
    pub fn figure(&self) -> String {
        let thinned: Vec<Vec<&Point>> = self.series.iter().map(|series| thin(&series.points)).collect();
        let mut out = format!("<figure>\n<output></output>\n<h3>{}</h3>\n", escape(&self.title));
        for axis in 0..self.axes.len() {
            self.draw(axis, &thinned, &mut out);
        }
        out.push_str("<figcaption>");
        for (number, series) in self.series.iter().enumerate() {
            let (class, name) = (css_class(series), escape(&series.name));
            let _ = write!(
                out,
                "<span class=\"key\"><svg viewBox=\"0 0 30 8\" aria-hidden=\"true\"><path class=\"{class}\" d=\"M0 4H30\"/>\
                 </svg>{name} <b data-series=\"{number}\"></b></span>"
            );
        }
        out.push_str("</figcaption>\n<script type=\"application/json\">");
        let values: Vec<_> = thinned
            .iter()
            .map(|points| {
                let steps: Vec<u64> = points.iter().map(|point| point.step).collect();
                let texts: Vec<String> = points.iter().map(|point| self.measure.unit.exact(point.value)).collect();
                serde_json::json!({"steps": steps, "values": texts})
            })
            .collect();
        // "</" would end the script element. JSON allows "<\/" instead.
        out.push_str(&serde_json::json!(values).to_string().replace("</", "<\\/"));
        out.push_str("</script>\n</figure>\n");
        out
    }

    fn draw(&self, axis: usize, thinned: &[Vec<&Point>], out: &mut String) {
        let all_points = || self.series.iter().flat_map(|series| &series.points);
        // Always from 0, so that charts below each other can be compared.
        let (x0, x1) = range(all_points().map(|point| point.x[axis]).chain([0.0]));
        // An extreme first step must not flatten the rest: the frame leaves out the highest and lowest 0.5 % of the
        // values.
        let (y0, y1) = range(trimmed(all_points().map(|point| point.value).collect()).into_iter());
        let margin = (y1 - y0) * 0.04;
        let (y0, y1) = (if y0 >= 0.0 { (y0 - margin).max(0.0) } else { y0 - margin }, y1 + margin);
        let px = |x: f64| LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
        let py = |y: f64| HEIGHT - BOTTOM - ((y - y0) / (y1 - y0)).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM);
        let (unit, x) = (self.measure.unit, self.axes[axis]);
        let (scale, x_name) = x.scale(x1);

        let _ = writeln!(
            out,
            "<svg class=\"chart x-{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" tabindex=\"0\" aria-label=\"{}\">",
            x.key(),
            escape(&self.summary(x_name))
        );
        let _ = writeln!(out, "<text class=\"name\" x=\"4\" y=\"18\">{}</text>", escape(self.measure.axis));
        for (y, text) in unit.ticks(y0, y1) {
            let tick_y = py(y);
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {tick_y:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                tick_y + 4.5,
            );
        }
        for (at, text) in Unit::Plain.ticks_of(x0 / scale, x1 / scale, 5) {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                px(at * scale),
                HEIGHT - BOTTOM + 20.0
            );
        }
        let _ = writeln!(
            out,
            "<text class=\"name\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{x_name}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 10.0,
        );
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {}H{}\"/>", HEIGHT - BOTTOM, WIDTH - RIGHT);
        for &mark in self.marks.get(axis).into_iter().flatten() {
            let _ = writeln!(out, "<path class=\"mark\" d=\"M{:.1} {TOP}V{}\"/>", px(mark), HEIGHT - BOTTOM);
        }
        for (number, (series, points)) in self.series.iter().zip(thinned).enumerate() {
            let class = css_class(series);
            let positions: Vec<(f64, f64)> = points.iter().map(|p| (px(p.x[axis]), py(p.value))).collect();
            let path: Vec<String> = positions.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let path = path.join(" ");
            let _ = writeln!(out, "<polyline class=\"{class}\" data-series=\"{number}\" points=\"{path}\"/>");
            if series.look == Look::Dots || points.len() == 1 {
                for (x, y) in &positions {
                    let _ = writeln!(out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
                }
            }
        }
        let _ = writeln!(out, "<path class=\"cursor\" d=\"M0 {TOP}V{}\"/>\n</svg>", HEIGHT - BOTTOM);
    }

    /// One sentence for each curve, for screen readers.
    fn summary(&self, x_name: &str) -> String {
        let unit = self.measure.unit;
        let mut text = format!("{}, {}, over the {x_name}.", self.title, self.measure.axis);
        for series in self.series.iter().filter(|series| series.look != Look::Faint) {
            let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { continue };
            let _ = write!(text, " {}: {} at step {}", series.name, unit.text(first.value), first.step);
            if last.step != first.step {
                let _ = write!(text, ", {} at step {}", unit.text(last.value), last.step);
            }
            text.push('.');
        }
        text
    }
}

fn css_class(series: &Series) -> String {
    let look = match series.look {
        Look::Faint => "faint",
        Look::Line => "line",
        Look::Dots => "dots",
    };
    format!("{look} s{}", series.style % STYLES)
}

/// The running mean over the last `width` points. It has the same length as `points`.
pub fn smooth(points: &[Point], width: usize) -> Vec<Point> {
    let mut sum = 0.0;
    let mut out = points.to_vec();
    for (at, point) in points.iter().enumerate() {
        sum += point.value;
        if at >= width {
            sum -= points[at - width].value;
        }
        out[at].value = sum / (at + 1).min(width) as f64;
    }
    out
}

/// About [`MAX_POINTS`] of the points: the minimum and the maximum of each group of neighbours, the first and the last
/// point. All values are original, and spikes are kept.
fn thin(points: &[Point]) -> Vec<&Point> {
    if points.len() <= MAX_POINTS {
        return points.iter().collect();
    }
    let group = points.len().div_ceil(MAX_POINTS / 2 - 1);
    let mut thinned: Vec<&Point> = points.first().into_iter().collect();
    for chunk in points.chunks(group) {
        let by_value = |a: &&Point, b: &&Point| a.value.total_cmp(&b.value);
        let (low, high) = (chunk.iter().min_by(by_value), chunk.iter().max_by(by_value));
        let mut both: Vec<&Point> = low.into_iter().chain(high).collect();
        both.sort_by_key(|point| point.step);
        thinned.extend(both);
    }
    thinned.extend(points.last());
    thinned.dedup_by_key(|point| point.step);
    thinned
}

/// The values without the highest and lowest 0.5 %.
fn trimmed(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 200;
    values[cut..values.len() - cut].to_vec()
}

/// The minimum and the maximum, widened if they are equal; (0, 1) without values.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if !low.is_finite() {
        (0.0, 1.0)
    } else if high > low {
        (low, high)
    } else {
        let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
        (low - margin, high + margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64, value: f64) -> Point {
        Point { step, value, x: vec![step as f64] }
    }

    fn chart(points: Vec<Point>) -> Chart {
        let series = vec![Series { name: "a & b".into(), style: 0, look: Look::Line, points }];
        Chart {
            title: "MLM loss".into(),
            measure: Measure::of("mlm_loss"),
            axes: vec![XAxis::Step],
            series,
            marks: vec![],
        }
    }

    #[test]
    fn smoothing_and_thinning_keep_the_last_point() {
        let points: Vec<Point> = (0..10_000).map(|x| point(x, 1.0)).collect();
        assert_eq!(smooth(&points, 100), points);
        let thinned = thin(&points);
        assert!(thinned.len() <= MAX_POINTS + 2, "{}", thinned.len());
        assert_eq!((thinned.first(), thinned.last()), (points.first().as_ref(), points.last().as_ref()));
    }

    #[test]
    fn thinned_curves_keep_exact_values_and_spikes() {
        let mut points: Vec<Point> = (0..10_000).map(|x| point(x, (x % 7) as f64)).collect();
        points[4321].value = 100.0;
        let thinned = thin(&points);
        assert!(thinned.iter().any(|point| (point.step, point.value) == (4321, 100.0)));
        assert!(thinned.iter().all(|point| points[point.step as usize] == **point));
        assert!(thinned.is_sorted_by_key(|point| point.step));
    }

    #[test]
    fn equal_values_give_a_finite_frame() {
        let svg = chart(vec![point(1, 0.0), point(2, 0.0)]).figure();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn chart_has_axis_labels_and_a_text_summary() {
        let svg = chart(vec![point(10, 9.0), point(20, 7.5)]).figure();
        assert!(svg.contains("class=\"name\" x=\"4\"") && svg.contains(">nats per predicted token</text>"), "{svg}");
        assert!(svg.contains(">step</text>"), "{svg}");
        assert!(svg.contains("a &amp; b: 9.000 at step 10, 7.500 at step 20."), "{svg}");
        assert!(svg.contains(r#"[{"steps":[10,20],"values":["9","7.5"]}]"#), "{svg}");
    }
}
