# docker build --tag scrip .

FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/scrip && pip install --no-cache-dir uv==0.13.8
ENV VIRTUAL_ENV=/opt/scrip
COPY requirements.lock requirements-dev.lock ./
RUN uv pip install --no-cache --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY ledger ledger
COPY projections projections
COPY api api
COPY consumers consumers
COPY scrip scrip
# The build backend is locked, too.
RUN uv pip install --no-cache --no-deps --build-constraint requirements-dev.lock .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home scrip
COPY --from=build /opt/scrip /opt/scrip
ENV PATH=/opt/scrip/bin:$PATH PYTHONUNBUFFERED=1 SCRIP_HTTP_HOST=0.0.0.0
USER 10001
EXPOSE 8000 8001
# Ready for SIGTERM: exec form, so that scrip is the first process.
ENTRYPOINT ["scrip"]
CMD ["serve", "api"]
