# The sidecar, the injector and the store: one program and the libraries that it is linked with, on an empty base, without a
# shell. A static build with musl took 13 % more processor time for each lookup, and 20 % for each decision.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg COMMIT=$(git rev-parse HEAD) \
#       --sbom=true --provenance=mode=max -t REGISTRY/beamline-sidecar:VERSION --push .
#
# Where the base image of the first stage cannot be had, tests/kubernetes/image.sh puts a program built here in its place.
ARG RUST=1.95.0

FROM docker.io/library/rust:${RUST}-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates g++ make
WORKDIR /src
COPY . .
# The commit that `--version` names; the context has no repository.
ARG COMMIT=unknown
RUN BEAMLINE_COMMIT=${COMMIT} cargo build --release --locked --bins
RUN tests/kubernetes/image-root.sh target/release/beamline-sidecar /out

FROM scratch
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="beamline-sidecar" \
      org.opencontainers.image.description="Answers the Beamline Router's policy lookups from memory, whether HEIR is up or not." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${COMMIT}"
COPY --from=build /out/ /
USER 65532:65532
# Data plane on the pod's own loopback; probes and metrics for the kubelet and Prometheus.
EXPOSE 8080 9901
ENTRYPOINT ["/beamline-sidecar"]
CMD ["run", "--supervised"]
