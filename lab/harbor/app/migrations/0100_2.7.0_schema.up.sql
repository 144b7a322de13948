-- 2.7 can pause a queue of jobs.

CREATE TABLE job_queue_status (
    id serial PRIMARY KEY,
    job_type varchar(256) NOT NULL UNIQUE,
    paused boolean NOT NULL DEFAULT false,
    update_time timestamp DEFAULT now()
);
