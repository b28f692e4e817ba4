//! How far something long is, on standard error, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use crate::context::Context;

/// A bar over a number of images.
pub fn images(context: &Context, message: &str, images: u64) -> ProgressBar {
    bar(context, message, images, "{msg}  {wide_bar}  {human_pos}/{human_len} images  {per_sec}  {eta}")
}

/// A bar over a number of bytes.
pub fn bytes(context: &Context, message: &str, bytes: u64) -> ProgressBar {
    let template = "{msg}  {wide_bar}  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta}";
    bar(context, message, bytes, template)
}

fn bar(context: &Context, message: &str, length: u64, template: &str) -> ProgressBar {
    let bar = if context.is_quiet() { ProgressBar::hidden() } else { ProgressBar::new(length) };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
    }
    bar.set_message(message.to_owned());
    bar
}
