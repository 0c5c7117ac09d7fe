//! HTML elements.

use std::fmt::Write;

/// Makes `text` safe between tags and inside quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(letter),
        }
    }
    out
}

/// A section's heading.
pub fn heading(title: &str) -> String {
    format!("<h2>{}</h2>\n", escape(title))
}

/// A row of tiles, each with a label and a large value.
pub fn tiles(tiles: &[(String, String)]) -> String {
    let mut out = String::from("<dl class=\"tiles\">\n");
    for (label, value) in tiles {
        let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(label), escape(value));
    }
    out + "</dl>\n"
}

/// A table with two columns: labels and values.
pub fn key_values(rows: &[(String, String)]) -> String {
    let mut out = String::from("<table class=\"facts\">\n");
    for (label, value) in rows {
        let _ = writeln!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(label), escape(value));
    }
    out + "</table>\n"
}

/// A table with a header row; the first column contains the row headers. A row's CSS class, if not empty, changes its
/// style.
#[derive(Default)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    /// A table without rows.
    pub fn new<T: Into<String>>(headers: impl IntoIterator<Item = T>) -> Table {
        Table { headers: headers.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, class: &'static str, cells: Vec<String>) {
        self.rows.push((class, cells));
    }

    /// The table as HTML. It scrolls if it is wider than the page. Columns without a value in any row are left out.
    pub fn html(&self) -> String {
        let has_values = |column: usize| self.rows.iter().any(|(_, row)| !["", "–"].contains(&row[column].as_str()));
        let columns: Vec<usize> = (0..self.headers.len()).filter(|&column| column == 0 || has_values(column)).collect();
        let mut out = String::from("<div class=\"wide\" tabindex=\"0\"><table>\n<thead><tr>");
        for &column in &columns {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(&self.headers[column]));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (class, row) in &self.rows {
            let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
            let _ = write!(out, "<tr{class}>");
            for &column in &columns {
                let cell = escape(&row[column]);
                let _ = match column {
                    0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(out, "<td>{cell}</td>"),
                };
            }
            out.push_str("</tr>\n");
        }
        out + "</tbody>\n</table></div>\n"
    }
}

/// A list of sentences.
pub fn list(items: &[String]) -> String {
    let mut out = String::from("<ul>\n");
    for item in items {
        let _ = writeln!(out, "<li>{}</li>", escape(item));
    }
    out + "</ul>\n"
}

/// A complete page with its styles and scripts inline.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} · cloze</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n\
         <footer>made by cloze {}</footer>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page.css"),
        env!("CARGO_PKG_VERSION"),
        include_str!("page.js"),
        title = escape(title),
    )
}
