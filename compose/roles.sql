-- Run once by the image, as the superuser: who owns the ledger, and who only works on it. The passwords come by
-- the environment, because command lines can be read by everybody on the machine.
\set ON_ERROR_STOP on
\getenv owner_password OWNER_PASSWORD
\getenv worker_password WORKER_PASSWORD

-- named after the ledger's database, which is called stockledger
CREATE ROLE stockledger_writer_stockledger NOLOGIN;
CREATE ROLE stockledger_reader_stockledger NOLOGIN;
CREATE ROLE stockledger LOGIN PASSWORD :'owner_password';
CREATE ROLE stockledger_worker LOGIN PASSWORD :'worker_password' IN ROLE stockledger_writer_stockledger;
CREATE DATABASE stockledger OWNER stockledger;

-- Only from inside the container from now on: docker compose exec postgres psql -U postgres stockledger
ALTER ROLE postgres PASSWORD NULL;
