# syntax=docker/dockerfile:1
#
#   docker build --build-arg COMMIT=$(git rev-parse HEAD) -t cloze .
#   docker run --rm -v "$PWD:/work" cloze quickstart
#
# COMMIT is what `cloze --version` says that it was built from: the repository itself is not copied into the image. It may be left out.
# Files are read and written in the folder mounted at /work; --user "$(id -u):$(id -g)" makes what is written yours.

FROM rust:1-slim-bookworm AS build
WORKDIR /source
COPY . .
ARG COMMIT
ENV CLOZE_COMMIT=$COMMIT
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked -p cloze && cp target/release/cloze /usr/local/bin/cloze

FROM debian:bookworm-slim
COPY --from=build /usr/local/bin/cloze /usr/local/bin/cloze
WORKDIR /work
ENTRYPOINT ["cloze"]
CMD ["--help"]
