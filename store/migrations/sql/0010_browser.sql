-- A browser's session is held by a cookie, of which only the SHA-256 is kept; without one it is a program's, which
-- refresh tokens hold. Callers' roles have their columns granted one by one, so none of them reads this one; the
-- API, which learns from it who calls, has the whole table.
ALTER TABLE admin_sessions ADD COLUMN cookie_hash bytea;
ALTER TABLE admin_sessions ADD CONSTRAINT uq_admin_sessions_cookie_hash UNIQUE (cookie_hash);
