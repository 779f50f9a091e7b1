# CPUs, with exactly the versions of requirements/cpu.txt:
#   docker build -t w2s-align . && docker run --rm -v "$PWD/w2s_runs:/app/w2s_runs" w2s-align run quickstart
FROM python:3.12-slim
WORKDIR /app
COPY . .
ENV W2S_BUILD=cpu PIP_NO_CACHE_DIR=1 PATH=/app/.venv/bin:$PATH
RUN bash scripts/install.sh --locked
ENTRYPOINT ["w2s"]
CMD ["--help"]
