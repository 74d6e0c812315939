# The command `stockledger` with everything it needs, the embedded services for `demo` included.
# Built by `docker compose build`; pip takes its index and certificates from the base image.
FROM python:3.13-slim

WORKDIR /app
COPY requirements/demo.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/demo.txt

COPY pyproject.toml README.md LICENSE ./
COPY ledger ledger
COPY consumer consumer
COPY producer producer
COPY gateway gateway
COPY stockledger stockledger
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
 && useradd --create-home --uid 10001 stockledger \
 && install --directory --mode 700 --owner stockledger /var/lib/stockledger

USER 10001
WORKDIR /home/stockledger
ENTRYPOINT ["stockledger"]
