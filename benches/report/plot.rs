//! The plot: throughput and round trips by message size.

use plotters::{coord::Shift, prelude::*};

use crate::{
    common::{
        Contender, Result,
        contender::{RING, SMCD, SMCD_BUSY_POLL, SMCD_SLEEP, TCP, TCP_NODELAY, UNIX},
    },
    round_trip,
    rows::{Row, median, size_name, sizes},
    throughput,
};

const SIZE: (u32, u32) = (1100, 440);
const FONT: &str = "sans-serif";

/// Everything that is drawn, with its colour; the palette is told apart by the colour-blind too.
const SERIES: [(&str, Contender, RGBColor); 7] = [
    ("SMC-D", SMCD, RGBColor(0, 114, 178)),
    ("SMC-D, busy poll", SMCD_BUSY_POLL, RGBColor(86, 180, 233)),
    ("SMC-D, sleep", SMCD_SLEEP, RGBColor(0, 158, 115)),
    ("TcpStream", TCP, RGBColor(213, 94, 0)),
    ("TcpStream, nodelay", TCP_NODELAY, RGBColor(204, 121, 167)),
    ("UnixStream", UNIX, RGBColor(230, 159, 0)),
    ("raw ring", RING, RGBColor(120, 120, 120)),
];

/// One of the two panels.
struct Panel {
    title: &'static str,
    bench: &'static str,
    metric: &'static str,
}

/// The picture. Its background is white, so that it can be read on a dark page too.
pub(crate) fn svg(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        draw(
            rows,
            &left,
            &Panel {
                title: "One-way throughput, GB/s (more is better)",
                bench: throughput::BENCH,
                metric: throughput::RATE,
            },
        )?;
        draw(
            rows,
            &right,
            &Panel {
                title: "Round trip p50, µs (less is better)",
                bench: round_trip::BENCH,
                metric: round_trip::P50,
            },
        )?;
        root.present()?;
    }
    Ok(text)
}

fn draw(rows: &[Row], area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel) -> Result<()> {
    let sizes = sizes(rows, panel.bench, panel.metric);
    if sizes.is_empty() {
        return Ok(());
    }
    let value = |bytes, who| median(rows, panel.bench, panel.metric, bytes, who);
    let all = || SERIES.iter().flat_map(|(_, who, _)| sizes.iter().filter_map(|&bytes| value(bytes, *who)));
    let (least, most) = all().fold((f64::MAX, 0.0), |(least, most), v| (v.min(least), v.max(most)));
    // Room below for the legend.
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 17))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(48)
        .build_cartesian_2d(-0.3..sizes.len() as f64 - 0.7, (least / 6.0..most * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(sizes.len())
        .x_label_formatter(&|x| sizes.get(x.round() as usize).map_or_else(String::new, |&b| size_name(b)))
        .y_label_formatter(&|y| plain(*y))
        .label_style((FONT, 13))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()?;
    for (name, who, colour) in SERIES {
        let points = sizes.iter().enumerate();
        let points: Vec<_> = points.filter_map(|(at, &b)| Some((at as f64, value(b, who)?))).collect();
        if points.is_empty() {
            continue;
        }
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font((FONT, 13))
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    Ok(())
}

/// 0.1, 1, 10: no more digits than there are.
fn plain(value: f64) -> String {
    format!("{value}")
}
