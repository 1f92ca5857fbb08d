import { text } from "../text.js";
import { JobCard, make } from "./card.js";
import { dollars } from "./status.js";

const POLL = 3; // seconds between requests while a job runs: no event tells of another page's runs

/** The sidebar tab: money spent, and the jobs. */
export class JobPanel {
    #cards = new Map();
    #seconds = 0;
    stalled = false;

    /** @param {import("./list.js").JobList} list */
    constructor(list) {
        this.list = list;
        this.element = make("section", "wan22-jobs");
        this.element.setAttribute("aria-label", text("jobs.title"));
        this.money = make("div", "wan22-jobs-money");
        this.fault = make("div", "wan22-jobs-fault");
        this.fault.setAttribute("role", "alert");
        this.empty = make("p", "wan22-jobs-empty");
        this.cards = make("ul", "wan22-jobs-list");
        this.end = make("div", "wan22-jobs-end");
        const scroller = make("div", "wan22-jobs-scroller");
        scroller.tabIndex = -1;
        scroller.append(this.empty, this.cards, this.end);
        this.element.append(this.#head(), this.fault, scroller);
        this.observer = new IntersectionObserver((entries) => this.#onVisible(entries),
            { root: scroller, rootMargin: "200px" });
        this.observer.observe(this.end);
        this.draw = () => this.#draw();
        list.addEventListener("change", this.draw);
        this.clock = setInterval(() => this.#tick(), 1000);
        this.#draw();
    }

    /** Stop timers and observers, and remove the element. */
    close() {
        clearInterval(this.clock);
        this.observer.disconnect();
        this.list.removeEventListener("change", this.draw);
        for (const card of this.#cards.values()) card.inView = false; // releases its video at once
        this.element.remove();
    }

    #head() {
        const head = make("header", "wan22-jobs-head");
        const title = make("h2", "");
        title.textContent = text("jobs.title");
        head.append(title, this.money);
        return head;
    }

    #draw() {
        const { list } = this;
        const jobs = list.sorted();
        this.#drawMoney();
        this.fault.textContent = list.fault;
        this.fault.hidden = !list.fault;
        this.empty.textContent = text(list.loaded ? "jobs.empty" : "jobs.loading");
        this.empty.hidden = jobs.length > 0 || (!list.loaded && list.fault !== "");
        jobs.forEach((job, place) => {
            const card = this.#cards.get(job.id) ?? this.#add(job.id);
            card.show(job);
            const there = this.cards.children[place];
            if (there !== card.element) this.cards.insertBefore(card.element, there);
        });
        for (const [id, card] of this.#cards) if (!list.jobs.has(id)) this.#remove(id, card);
        this.end.hidden = !list.more;
        if (this.stalled && !list.fault) this.#watchEnd();
    }

    #drawMoney() {
        const { spent, budget } = this.list;
        this.money.textContent = budget
            ? text("jobs.spentOf", { spent: dollars(spent), budget: dollars(budget) })
            : text("jobs.spent", { spent: dollars(spent) });
        this.money.title = text("jobs.spentHow");
        this.money.classList.toggle("wan22-jobs-over", Boolean(budget) && spent >= budget);
    }

    #add(id) {
        const card = new JobCard(this.list);
        card.element.wan22Card = card;
        this.#cards.set(id, card);
        this.observer.observe(card.element);
        return card;
    }

    #remove(id, card) {
        this.observer.unobserve(card.element);
        card.inView = false;
        card.element.remove();
        this.#cards.delete(id);
    }

    async #onVisible(entries) {
        for (const { target, isIntersecting } of entries)
            if (target !== this.end) target.wan22Card.inView = isIntersecting;
        if (!entries.some(({ target, isIntersecting }) => target === this.end && isIntersecting)) return;
        await this.list.older();
        this.#watchEnd();
    }

    /** Observe the end anew, as it may still be in view below a new page; not while the server fails. */
    #watchEnd() {
        this.observer.unobserve(this.end);
        this.stalled = this.list.fault !== "";
        if (!this.stalled) this.observer.observe(this.end);
    }

    #tick() {
        const busy = [...this.list.jobs.values()].filter((job) => job.run);
        for (const job of busy) this.#cards.get(job.id)?.tick();
        this.#seconds = (this.#seconds + 1) % POLL;
        if (this.#seconds === 0 && (busy.length || this.list.fault)) this.list.refresh();
    }
}
