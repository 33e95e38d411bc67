# dbjobq from this checkout: `docker build -t dbjobq .`, then `docker run dbjobq worker your.module`.
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}

# A virtual environment, because pip may not write to some distributions' own Python.
ENV PATH=/opt/dbjobq/bin:$PATH PYTHONUNBUFFERED=1
RUN python3 -m venv /opt/dbjobq
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY dbjobq dbjobq
COPY migrations migrations
RUN pip install --no-cache-dir .

# As PID 1 Python would miss a SIGTERM that comes before it has installed its handler, and leave what jobs start as zombies.
RUN command -v tini || (apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*)

RUN useradd --create-home --uid 10001 dbjobq
WORKDIR /app
COPY examples examples
ENV PYTHONPATH=/app
USER dbjobq
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "dbjobq"]
CMD ["--help"]
