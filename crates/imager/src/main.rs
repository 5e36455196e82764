//! `imager`: source image and artifact to provisioned volume to image.

fn main() {
    cli::run(imager::run)
}
