//! Tables: columns aligned, as many as the terminal has room for.

use super::terminal::{Terminal, Tone};

/// Between two columns.
const GAP: usize = 2;
/// What a long text is cut to at most, where there is no room.
const LEAST: usize = 8;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) title: &'static str,
    /// Numbers stand on the right.
    pub(crate) is_number: bool,
    /// Where there is no room, the columns with the highest go first; those with 0 stay.
    pub(crate) rank: u8,
}

impl Column {
    /// Of words.
    pub(crate) const fn text(title: &'static str, rank: u8) -> Self {
        let is_number = false;
        Self {
            title,
            is_number,
            rank,
        }
    }

    /// Of numbers.
    pub(crate) const fn number(title: &'static str, rank: u8) -> Self {
        let is_number = true;
        Self {
            title,
            is_number,
            rank,
        }
    }
}

/// One field.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text = text.into();
        Self { text, tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// A table whose rows have a field for each column.
pub(crate) struct Table<'a, const N: usize> {
    pub(crate) columns: &'a [Column; N],
    pub(crate) rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<'_, N> {
    /// The text, for a terminal.
    pub(crate) fn show(&self, terminal: Terminal) -> String {
        let lines = self.lines(terminal.width).into_iter().map(|line| {
            let pieces = line
                .iter()
                .map(|piece| terminal.paint(&piece.text, piece.tone));
            pieces.collect::<String>().trim_end().to_owned() + "\n"
        });
        lines.collect()
    }

    /// The lines, the headings first, of pieces that stand beside each other; in so much room.
    pub(crate) fn lines(&self, width: Option<usize>) -> Vec<Vec<Cell>> {
        let columns = self.choose(width);
        let headings = self
            .columns
            .map(|column| Cell::new(column.title, Tone::Heading));
        let line = |row: &[Cell; N]| {
            let mut line = Vec::new();
            for &(i, width) in &columns {
                let text = cut(&row[i].text, width);
                let pad = " ".repeat(width.saturating_sub(text.chars().count()));
                let text = Cell::new(text, row[i].tone);
                match self.columns[i].is_number {
                    true => line.extend([pad.into(), text]),
                    false => line.extend([text, pad.into()]),
                }
                line.push(" ".repeat(GAP).into());
            }
            line
        };
        [&headings]
            .into_iter()
            .chain(&self.rows)
            .map(line)
            .collect()
    }

    /// The columns that have room, each with its width.
    fn choose(&self, width: Option<usize>) -> Vec<(usize, usize)> {
        let mut chosen: Vec<(usize, usize)> = (0..N)
            .map(|i| {
                let title = self.columns[i].title.chars().count();
                let widths = self.rows.iter().map(|row| row[i].width());
                (i, widths.max().unwrap_or(0).max(title))
            })
            .collect();
        let Some(room) = width else {
            return chosen;
        };
        let excess = |chosen: &[(usize, usize)]| {
            let widths: usize = chosen.iter().map(|(_, width)| width + GAP).sum();
            widths.saturating_sub(room + GAP)
        };
        while excess(&chosen) > 0
            && let Some(last) = chosen.iter().map(|(i, _)| self.columns[*i].rank).max()
            && last > 0
        {
            chosen.retain(|(i, _)| self.columns[*i].rank != last);
        }
        // Then the widest text is cut.
        let excess = excess(&chosen);
        let texts = chosen
            .iter_mut()
            .filter(|(i, _)| !self.columns[*i].is_number);
        if let Some((_, widest)) = texts.max_by_key(|(_, width)| *width) {
            *widest = widest.saturating_sub(excess).max(LEAST.min(*widest));
        }
        chosen
    }
}

/// The first part of `text`, where it is wider than `width`.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::text("NAME", 0),
        Column::number("N", 1),
        Column::text("LAST", 0),
    ];

    fn show(width: Option<usize>) -> String {
        let table = Table {
            columns: &COLUMNS,
            rows: vec![
                ["a".into(), "12345".into(), "-".into()],
                ["name-of-many-letters".into(), "6".into(), "x".into()],
            ],
        };
        table.show(Terminal::none(width))
    }

    #[test]
    fn columns_are_aligned() {
        let wide = "NAME                      N  LAST\n\
                    a                     12345  -\n\
                    name-of-many-letters      6  x\n";
        assert_eq!(show(None), wide);
        assert_eq!(show(Some(33)), wide);
    }

    #[test]
    fn what_has_no_room_is_left_out_or_cut() {
        let narrow = "NAME                  LAST\n\
                      a                     -\n\
                      name-of-many-letters  x\n";
        assert_eq!(show(Some(32)), narrow);
        let narrower = "NAME        LAST\na           -\nname-of-m…  x\n";
        assert_eq!(show(Some(16)), narrower);
        assert_eq!(show(Some(3)).lines().count(), 3);
    }
}
