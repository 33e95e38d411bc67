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

RUN useradd --create-home --uid 10001 dbjobq
WORKDIR /app
COPY examples examples
ENV PYTHONPATH=/app
USER dbjobq
STOPSIGNAL SIGTERM
ENTRYPOINT ["dbjobq"]
CMD ["--help"]
