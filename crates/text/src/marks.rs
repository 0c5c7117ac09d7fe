//! Counts the marks that stripping accents removes from a text, per script.
//!
//! BERT's normaliser decomposes text (NFD) and removes nonspacing marks (Mn). These are the accents of Latin, but also vowel
//! signs and tone marks, whose removal changes the meaning of words in Devanagari, Thai or Vietnamese.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_script::{Script, UnicodeScript};

/// The letters of a script in a text, and the marks that stripping accents removes from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptMarks {
    /// The script's Unicode name: "Latin", "Devanagari".
    pub script: String,
    /// Number of letters.
    pub letters: u64,
    /// Number of marks on them, both composed with a letter and as separate characters.
    pub marks: u64,
}

/// Counts letters and the marks on them, per script.
#[derive(Clone, Debug, Default)]
pub struct MarkCounts {
    /// Letters and marks of each script.
    scripts: BTreeMap<&'static str, [u64; 2]>,
}

/// From this ratio of marks to letters, a script loses more than a few accents.
const NOTABLE_RATIO: f64 = 0.05;

impl MarkCounts {
    /// Adds the counts of a text.
    pub fn count(&mut self, text: &str) {
        let (mut ascii, mut latest) = (0, Script::Latin);
        let mut rest = text;
        loop {
            // Most text is ASCII, which has no marks: a run of it is counted as bytes.
            let (run, after) = rest.split_at(rest.bytes().position(|byte| !byte.is_ascii()).unwrap_or(rest.len()));
            let letters = run.bytes().filter(u8::is_ascii_alphabetic).count() as u64;
            ascii += letters;
            if letters > 0 {
                latest = Script::Latin;
            }
            let Some(c) = after.chars().next() else { break };
            rest = &after[c.len_utf8()..];
            let is_mark = c.is_mark_nonspacing();
            if !is_mark && !c.is_alphabetic() {
                continue;
            }
            let script = match c.script() {
                // A mark that is used with many scripts takes the script of the letter before it.
                Script::Inherited | Script::Common => latest,
                other => other,
            };
            latest = script;
            let counts = self.scripts.entry(script.full_name()).or_default();
            if is_mark {
                counts[1] += 1;
            } else {
                counts[0] += 1;
                counts[1] += std::iter::once(c).nfd().filter(|(c, _)| c.is_mark_nonspacing()).count() as u64;
            }
        }
        if ascii > 0 {
            self.scripts.entry(Script::Latin.full_name()).or_default()[0] += ascii;
        }
    }

    /// Adds the counts of other texts.
    pub fn add(&mut self, other: &MarkCounts) {
        for (script, [letters, marks]) in &other.scripts {
            let counts = self.scripts.entry(script).or_default();
            counts[0] += letters;
            counts[1] += marks;
        }
    }

    /// The counts as bytes, for [`add_bytes`](Self::add_bytes) of another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        let lines = self.scripts.iter().map(|(script, [letters, marks])| format!("{script}\t{letters}\t{marks}\n"));
        lines.collect::<String>().into_bytes()
    }

    /// Adds the counts of another process, from [`to_bytes`](Self::to_bytes); `None` if they are not valid.
    pub fn add_bytes(&mut self, bytes: &[u8]) -> Option<()> {
        for line in std::str::from_utf8(bytes).ok()?.lines() {
            let mut parts = line.split('\t');
            let script = Script::from_full_name(parts.next()?)?.full_name();
            let numbers: Vec<u64> = parts.map(|number| number.parse().ok()).collect::<Option<_>>()?;
            let added: [u64; 2] = numbers.try_into().ok()?;
            self.scripts.entry(script).or_default().iter_mut().zip(added).for_each(|(sum, number)| *sum += number);
        }
        Some(())
    }

    /// The scripts with marks, most marks first.
    pub fn scripts(&self) -> Vec<ScriptMarks> {
        let mut scripts: Vec<ScriptMarks> = self
            .scripts
            .iter()
            .filter(|(_, [_, marks])| *marks > 0)
            .map(|(script, &[letters, marks])| ScriptMarks { script: (*script).to_owned(), letters, marks })
            .collect();
        scripts.sort_by(|a, b| b.marks.cmp(&a.marks).then_with(|| a.script.cmp(&b.script)));
        scripts
    }
}

impl ScriptMarks {
    /// Number of marks per letter.
    pub fn ratio(&self) -> f64 {
        self.marks as f64 / self.letters.max(1) as f64
    }

    /// "Thai 1234 (21.0 % of its letters)".
    pub fn describe(&self) -> String {
        format!("{} {} ({:.1} % of its letters)", self.script, self.marks, 100.0 * self.ratio())
    }

    /// A warning that names the scripts that lose more than a few accents; `None` if there are none.
    pub fn warning(of: &[ScriptMarks]) -> Option<String> {
        let lost = of.iter().filter(|script| script.ratio() >= NOTABLE_RATIO);
        let lost: Vec<String> = lost.map(ScriptMarks::describe).collect();
        let what = lost.join(", ");
        (!lost.is_empty()).then(|| {
            format!(
                "Normalisation removes marks that distinguish words: {what}. A vocabulary that is learned with `keep_accents` \
                 or is cased keeps them."
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::normalizers::BertNormalizer;
    use tokenizers::{NormalizedString, Normalizer};

    fn counted(text: &str) -> Vec<(String, u64, u64)> {
        let mut counts = MarkCounts::default();
        counts.count(text);
        counts.scripts().into_iter().map(|s| (s.script, s.letters, s.marks)).collect()
    }

    #[test]
    fn r22_marks_are_counted_by_script_as_the_normaliser_drops_them() {
        let text = "हिन्दी น้ำ ごはん Việt möchte caf\u{65}\u{301} 한국 日本";
        let found = counted(text);
        let marks: u64 = found.iter().map(|(_, _, marks)| marks).sum();
        // Stripping removes only marks: the letters remain.
        let mut kept = NormalizedString::from(text);
        BertNormalizer::new(true, false, Some(true), false).normalize(&mut kept).unwrap();
        let decomposed = text.nfd().count() as u64;
        assert_eq!(marks, decomposed - kept.get().chars().count() as u64);
        let of = |script: &str| found.iter().find(|(name, ..)| name == script).map(|(_, _, marks)| *marks);
        assert_eq!((of("Latin"), of("Devanagari"), of("Thai"), of("Hiragana")), (Some(4), Some(1), Some(1), Some(1)));
        assert_eq!((of("Hangul"), of("Han")), (None, None));
        assert_eq!(counted("plain text"), []);
        // Another process counts a part.
        let (mut counts, mut other) = (MarkCounts::default(), MarkCounts::default());
        counts.count("Việt हिन्दी");
        other.count("möchte น้ำ 日本");
        let mut sum = counts.clone();
        sum.add(&other);
        assert_eq!(counts.add_bytes(&other.to_bytes()), Some(()));
        assert_eq!(counts.scripts, sum.scripts);
        assert_eq!(counts.add_bytes(b"Latin\t1"), None);
    }

    #[test]
    fn a_few_accents_give_no_warning() {
        let scripts = |text: &str| {
            let mut counts = MarkCounts::default();
            counts.count(text);
            counts.scripts()
        };
        assert_eq!(ScriptMarks::warning(&scripts("Das möchte ich nicht so gerne haben, sagte er zu ihr.")), None);
        let warning = ScriptMarks::warning(&scripts("हिन्दी में लिखें")).unwrap();
        assert!(warning.contains("Devanagari") && warning.contains("`keep_accents`"), "{warning}");
    }
}
