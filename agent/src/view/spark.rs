//! Lines of blocks: the recent past at a glance.

/// Nothing, then seven eighths and a full block. The lowest is not blank: a second without a handshake was seen too.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The newest points that fit, newest at the right, the largest of them as high as it gets.
pub fn line(points: &[f32], width: usize) -> String {
    let points = &points[points.len().saturating_sub(width)..];
    let top = largest(points);
    let blank = " ".repeat(width.saturating_sub(points.len()));
    let blocks = points.iter().map(|&point| {
        let share = usable(point) / top;
        // Whatever is more than nothing looks like more than nothing.
        LEVELS[if share > 0.0 { ((share * 7.0).ceil() as usize).clamp(1, 7) } else { 0 }]
    });
    blank.chars().chain(blocks).collect()
}

/// The same over several rows, top row first.
pub fn rows(points: &[f32], width: usize, height: usize) -> Vec<String> {
    let points = &points[points.len().saturating_sub(width)..];
    let top = largest(points);
    let blank = " ".repeat(width.saturating_sub(points.len()));
    (0..height)
        .rev()
        .map(|row| {
            let blocks = points.iter().map(|&point| {
                let filled = (usable(point) / top * (height * 8) as f32).ceil() as usize;
                match filled.saturating_sub(row * 8) {
                    0 if row == 0 => LEVELS[0],
                    0 => ' ',
                    part => LEVELS[part.min(8) - 1],
                }
            });
            blank.chars().chain(blocks).collect()
        })
        .collect()
}

/// The largest usable point, never zero.
pub fn largest(points: &[f32]) -> f32 {
    points.iter().map(|&point| usable(point)).fold(f32::MIN_POSITIVE, f32::max)
}

fn usable(point: f32) -> f32 {
    if point.is_finite() { point.max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_at_the_right() {
        assert_eq!(line(&[0.0, 1.0, 7.0], 5), "  ▁▂█");
        assert_eq!(line(&[9.0, 1.0, 7.0], 2), "▂█");
        assert_eq!(line(&[0.0, 0.0], 2), "▁▁");
        assert_eq!(line(&[], 3), "   ");
        assert_eq!(line(&[1.0], 0), "");
    }

    #[test]
    fn several_rows() {
        assert_eq!(rows(&[0.0, 4.0, 8.0], 4, 2), ["   █", " ▁██"]);
        assert_eq!(rows(&[f32::NAN, -1.0, f32::INFINITY], 3, 1), ["▁▁▁"]);
        assert!(rows(&[1.0], 3, 0).is_empty());
    }
}
