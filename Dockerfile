# Tessera with its pinned packages.
#   docker build -t tessera .                                     CPU
#   docker build -t tessera:cuda --build-arg TORCH=cuda .         NVIDIA GPU; run with --gpus all
#   docker run --rm -v "$PWD:/work" tessera --cores all --configfile /work/my.yaml
# Results, state and Snakemake's records are written to the folder that is mounted at /work.
FROM python:3.12-slim

# Where torch comes from: its CPU build is a tenth of the size. The CUDA build brings its own CUDA libraries; the host brings the driver.
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE

WORKDIR /opt/tessera
COPY . .
RUN if [ "$TORCH" = cpu ]; then \
        pip install -c constraints.txt torch --index-url https://download.pytorch.org/whl/cpu; \
    fi \
    && pip install -c constraints.txt -e '.[onnx,sentences]'

WORKDIR /work
ENTRYPOINT ["snakemake", "--snakefile", "/opt/tessera/Snakefile"]
CMD ["--cores", "all"]
