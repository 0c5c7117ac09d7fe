//! Rule-based sentence splitting: good for English, reasonable for other scripts.
//!
//! A newline always ends a sentence. Within a line, a run of `. ! ? …` ends a sentence if a space follows and the next word
//! does not begin in lower case. A full stop of an abbreviation, an initial or a list number does not end a sentence.
//! `。！？` and the full stops of other scripts end a sentence in any position. Closing quotes and brackets belong to the
//! sentence that they close.

/// Splits a text into its sentences, in order, trimmed and not empty. Every character that is not white space is in exactly
/// one sentence.
///
/// ```
/// use cloze_data::sentences::split;
/// let text = "Mr. Smith paid $3.50 for it. \"Why?\" asked J. R. Jones.\nNobody knew …";
/// let sentences: Vec<&str> = split(text).collect();
/// assert_eq!(sentences, ["Mr. Smith paid $3.50 for it.", "\"Why?\" asked J. R. Jones.", "Nobody knew …"]);
/// ```
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    // U+2028, U+2029 and U+0085 also end lines, but they are rare; here they count as white space.
    text.split(['\n', '\r', '\x0b', '\x0c']).flat_map(|line| Sentences { rest: line.trim() })
}

/// The sentences of one line.
struct Sentences<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Sentences<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let end = sentence_end(self.rest);
        let (sentence, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        Some(sentence.trim_end())
    }
}

/// The length in bytes of the first sentence of a line that does not begin with white space.
fn sentence_end(line: &str) -> usize {
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        // Most bytes are ASCII letters: skip them quickly.
        let byte = bytes[at];
        if byte < 0x80 && !matches!(byte, b'.' | b'!' | b'?') {
            at += 1;
            continue;
        }
        let Some(c) = line[at..].chars().next() else {
            break;
        };
        let Some(mark) = Mark::of(c) else {
            at += c.len_utf8();
            continue;
        };
        let stop = at;
        at += c.len_utf8();
        let mut anywhere = mark == Mark::Anywhere;
        let mut single_stop = c == '.';
        while let Some(c) = line[at..].chars().next() {
            let next = Mark::of(c);
            if next.is_none() && !is_closer(c) {
                break;
            }
            // "?." and "..." are not abbreviations; `.)` may be one.
            single_stop &= next.is_none();
            anywhere |= next == Some(Mark::Anywhere);
            at += c.len_utf8();
        }
        if anywhere {
            return at;
        }
        let rest = &line[at..];
        if rest.is_empty() {
            return at;
        }
        if !rest.starts_with(char::is_whitespace) {
            continue;
        }
        if begins_sentence(rest.trim_start()) && !(single_stop && belongs_to_word(&line[..stop], rest.trim_start())) {
            return at;
        }
    }
    line.len()
}

/// The two kinds of marks that end sentences.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Ends a sentence if a space follows.
    BeforeSpace,
    /// Ends a sentence in any position.
    Anywhere,
}

impl Mark {
    fn of(c: char) -> Option<Mark> {
        match c {
            '.' | '!' | '?' | '…' | '‥' | '؟' | '۔' | '‼' | '⁇' | '⁈' | '⁉' => Some(Mark::BeforeSpace),
            // Ideographic and full-width; danda and double danda; Ethiopic, Burmese, Khmer.
            '。' | '．' | '！' | '？' | '｡' | '।' | '॥' | '።' | '፧' | '။' | '។' => {
                Some(Mark::Anywhere)
            }
            _ => None,
        }
    }
}

fn is_closer(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}' | '”' | '’' | '»' | '›' | '」' | '』' | '】' | '〉' | '》' | '）' | '］')
}

fn is_opener(c: char) -> bool {
    matches!(c, '"' | '\'' | '(' | '[' | '{' | '“' | '‘' | '«' | '‹' | '„' | '¿' | '¡' | '*' | '_' | '—' | '–' | '-')
}

/// Whether a sentence can begin with `rest`, the text after a mark and a space: not with a lower-case letter or other punctuation.
fn begins_sentence(rest: &str) -> bool {
    let mut chars = rest.chars();
    let Some(first) = chars.next() else {
        return true;
    };
    if is_opener(first) {
        // "He left. (Nobody saw.)", but not "it etc. (see below)": the word after the opener decides, except for quotations.
        let quotation = matches!(first, '"' | '“' | '«' | '„');
        let word = chars.find(|&c| !is_opener(c));
        return word.is_none_or(|c| c.is_alphanumeric() && (quotation || !c.is_lowercase()));
    }
    !first.is_lowercase() && (first.is_alphanumeric() || matches!(first, '£' | '$' | '€' | '#' | '@' | '&'))
}

/// Whether the full stop after `before` belongs to its word: an abbreviation, an initial, or the number of a list item.
fn belongs_to_word(before: &str, next: &str) -> bool {
    let start = before
        .rfind(|c: char| c.is_whitespace() || c == '—' || c == '–')
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let first_of_sentence = start == 0;
    let word = before[start..].trim_start_matches(|c| is_opener(c) || is_closer(c));
    if word.is_empty() {
        return false;
    }
    let next_word = next
        .trim_start_matches(is_opener)
        .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’')
        .next()
        .unwrap_or_default();
    if word.bytes().all(|b| b.is_ascii_digit()) {
        // "1. An item", but not "… in 1990. Then".
        return first_of_sentence && word.len() <= 3;
    }
    let mut letters = word.chars();
    if let (Some(only), None) = (letters.next(), letters.next()) {
        // An initial: "J. Smith". "I" is more often a pronoun: "So do I. The".
        let initial = only.is_uppercase() && !(only == 'I' && is_starter(next_word));
        // Abbreviations in Russian and other languages: "г. Москва".
        return initial || (only.is_lowercase() && !only.is_ascii());
    }
    // Dotted: "U.S", "e.g", "a.m", "Ph.D", "J.R.R".
    let dotted = word.contains('.')
        && word.split('.').all(|part| (1..=2).contains(&part.chars().count()) && part.chars().all(char::is_alphabetic));
    if dotted {
        let latin = matches!(word, "e.g" | "i.e" | "E.g" | "I.e");
        return latin || !is_starter(next_word);
    }
    // The lists below contain no longer words.
    if word.len() > 6 {
        return false;
    }
    let lower = word.to_lowercase();
    let lower = lower.as_str();
    // Titles are capitalised; "gen", "rep" and "gov" in lower case are other words.
    if word.starts_with(char::is_uppercase) && TITLES.contains(&lower) || LATIN.contains(&lower) {
        return true;
    }
    if BEFORE_NUMBERS.contains(&lower) {
        return next_word.starts_with(|c: char| c.is_ascii_digit())
            || (next_word.len() > 1 && next_word.chars().all(|c| "IVXLC".contains(c)));
    }
    MAY_END.contains(&lower) && !is_starter(next_word)
}

/// Always followed by a name.
const TITLES: &[&str] = &[
    "mr", "mrs", "ms", "messrs", "mme", "mlle", "mm", "dr", "prof", "rev", "fr", "st", "ste", "hon", "gen", "col",
    "maj", "capt", "cpt", "lt", "sgt", "cpl", "cmdr", "adm", "brig", "gov", "sen", "rep", "pres", "supt", "insp", "mt",
    "ft", "ald", "sir", "pvt", "amb", "vs",
];
/// Never the last word of a sentence.
const LATIN: &[&str] = &["cf", "viz", "ca", "vs", "approx", "eg", "ie", "resp"];
/// Abbreviations if a number follows, otherwise words or sentence ends.
const BEFORE_NUMBERS: &[&str] = &[
    "no", "nos", "vol", "vols", "p", "pp", "ch", "chap", "fig", "figs", "eq", "eqs", "sec", "sect", "art", "op", "opp",
    "bk", "pt", "ser", "ref", "refs", "tab", "col", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept",
    "oct", "nov", "dec", "circa", "c", "v", "b", "d", "r", "fl", "rev",
];
/// Abbreviations that may also end a sentence; the next word decides.
const MAY_END: &[&str] = &[
    "inc", "ltd", "co", "corp", "bros", "jr", "sr", "esq", "etc", "al", "ave", "blvd", "rd", "dept", "univ", "assn",
    "est", "ed", "eds", "trans", "div", "gmbh", "plc", "mass", "conn", "penn", "calif", "tenn", "wis", "minn", "ill",
    "ind", "ariz", "fla", "ga", "ky", "md", "va", "wash", "ph", "ste", "h", "m",
];

/// Words that begin a sentence much more often than they continue a name.
fn is_starter(word: &str) -> bool {
    matches!(
        word,
        "The"
            | "A"
            | "An"
            | "He"
            | "She"
            | "It"
            | "They"
            | "We"
            | "I"
            | "You"
            | "His"
            | "Her"
            | "Its"
            | "Their"
            | "Our"
            | "My"
            | "This"
            | "That"
            | "These"
            | "Those"
            | "There"
            | "Then"
            | "But"
            | "And"
            | "However"
            | "In"
            | "On"
            | "At"
            | "As"
            | "After"
            | "Before"
            | "When"
            | "While"
            | "Although"
            | "Though"
            | "If"
            | "For"
            | "From"
            | "By"
            | "With"
            | "During"
            | "Since"
            | "So"
            | "Some"
            | "Many"
            | "Most"
            | "One"
            | "No"
            | "What"
            | "Who"
            | "Why"
            | "How"
            | "Where"
            | "Yet"
            | "Not"
            | "To"
            | "Also"
            | "Both"
            | "Despite"
            | "According"
            | "Other"
            | "Two"
            | "Later"
            | "Now"
            | "Here"
    )
}

#[cfg(test)]
mod tests {
    use super::split;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(split(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn plain_sentences() {
        check("One. Two! Three?  Four", &["One.", "Two!", "Three?", "Four"]);
        check("  \n\n A line\r\nanother  \n", &["A line", "another"]);
        check("", &[]);
        check("In 1990. Then it fell.", &["In 1990.", "Then it fell."]);
    }

    #[test]
    fn abbreviations_and_initials_do_not_end_sentences() {
        check(
            "Dr. A. B. Smith met Mrs. Jones at 5 p.m. on Jan. 5, e.g. Monday.",
            &["Dr. A. B. Smith met Mrs. Jones at 5 p.m. on Jan. 5, e.g. Monday."],
        );
        check(
            "He moved to the U.S. The firm, Acme Inc. of Ohio, paid. See No. 5.",
            &["He moved to the U.S.", "The firm, Acme Inc. of Ohio, paid.", "See No. 5."],
        );
        check("The U.S. Army left.", &["The U.S. Army left."]);
        check("Is it so? No. It is not.", &["Is it so?", "No.", "It is not."]);
        check("1. An item. 2 more.", &["1. An item.", "2 more."]);
        check("So do I. The end.", &["So do I.", "The end."]);
        check("Smith et al. (2019) found it.", &["Smith et al. (2019) found it."]);
    }

    #[test]
    fn quotes_and_brackets_belong_to_their_sentence() {
        check("\"Stop!\" he said. \"Why?\" She left.", &["\"Stop!\" he said.", "\"Why?\"", "She left."]);
        check("“Go.” The man went. (He ran.) Soon.", &["“Go.”", "The man went.", "(He ran.)", "Soon."]);
        check("It ended. “and then?” he asked.", &["It ended.", "“and then?” he asked."]);
    }

    #[test]
    fn numbers_and_ellipses() {
        check("It cost 3.14 or 1,000.50 dollars. Yes.", &["It cost 3.14 or 1,000.50 dollars.", "Yes."]);
        check("Well ... maybe. So... Then. Hm… no.", &["Well ... maybe.", "So...", "Then.", "Hm… no."]);
        check("a.b.c example.com/x.html done", &["a.b.c example.com/x.html done"]);
        check("Tokenised text , like this . It is so .", &["Tokenised text , like this .", "It is so ."]);
    }

    #[test]
    fn other_scripts() {
        check("今日は。明日は？「はい。」それで", &["今日は。", "明日は？", "「はい。」", "それで"]);
        check("यह है। वह है।", &["यह है।", "वह है।"]);
        check("Он жил в г. Москва. Там сад.", &["Он жил в г. Москва.", "Там сад."]);
        check("هل هذا؟ نعم.", &["هل هذا؟", "نعم."]);
    }

    #[test]
    fn nothing_is_lost() {
        let text = "Odd… ! ? \"x\" . . . (.) J.\u{a0}R.\u{2028}«Ça.» ¿Qué? 。。 .";
        let keep = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        assert_eq!(split(text).map(keep).collect::<String>(), keep(text));
        assert!(split(text).all(|s| !s.is_empty() && s.trim() == s));
    }
}
